"""Contacts: turns the raw fields of an event into a person's phone number, email address, name and time zone."""
