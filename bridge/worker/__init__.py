"""The stages behind the receiver: routing what is stored, attempting what is due, following up what failed."""
