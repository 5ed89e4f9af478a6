"""A Twilio account: texts, opt-outs, receipts and replies."""
