"""Mock Twilio account: messages, opt-outs, status callbacks and inbound messages."""
