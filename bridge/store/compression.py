"""Compression of bodies: each is stored compressed, with the help of a dictionary of what most bodies contain.

A compressed body begins with a byte that names the dictionary; JSON never begins with it, so bodies that were stored
uncompressed stay readable. The dictionary belongs to the format: stored bodies can only be read with it, so it never
changes. A better one gets another byte. It is written one release after it can be read, because two versions may run
side by side.
"""

from __future__ import annotations

import zlib
from typing import Final

MAX_SIZE: Final = 1024 * 1024
"""Bytes. The receiver accepts no larger body, so nothing larger is decompressed. What the bridge itself makes and is
larger, is stored as it is."""
MARK: Final = b"\x01"
_LEVEL: Final = 1
"""Level 3 makes bodies 4 % smaller and takes a quarter longer for 20 KB."""
# The names and values that Heppu documents, as JSON.stringify writes them. What is most common comes last.
_DICTIONARY: Final = (
    b'{"event":"contact.opted_out","webhookId":"contact.opted_out:opt_","conversationId":"opt_",'
    b'"channels":["whatsapp","call","email"],"address":"","source":"STOP to ","actor":null,"reason":null,'
    b'{"event":"sms.received","connection":"twilio","channel":"sms","messageId":"SM","from":"+","to":"+",'
    b'"text":"","media":[],"optOut":false,"optIn":false,'
    b'"transcript":[{"role":"assistant","content":""},{"role":"user","content":"'
    b'"messageCount":2,"chatMetadata":{"widgetId":"widget_","resolved":true,"totalCost":0.0,"toolsUsed":["],'
    b'"firstMessageAt":"","lastMessageAt":"","feedback":{"rating":5,"comment":""},'
    b'"goal":{"achieved":true,"type":""}},'
    b'"metadata":{"visitorId":"visitor_","ipAddress":"","userAgent":"Mozilla/5.0 (","referrer":"https://'
    b'"outcome":"auto_completed_inactive","conversationType":"chat","outcome":"ongoing",'
    b'"event":"chat.abandoned","event":"chat.resolved","event":"chat.completed",'
    b'"firstName":"","lastName":"","timezone":"Europe/","previousAttempts":1,"maxAttempts":3}},'
    b'"campaignType":"outbound_sales","appointment_reminder","follow_up","priority":"high",'
    b'"status":"no_answer","status":"busy","status":"failed",'
    b'"event":"call.no-answer","event":"call.busy","event":"call.failed",'
    b'{"event":"call.completed","timestamp":"2026-01-01T00:00:00.000Z","webhookId":"whd_","agentId":"",'
    b'"agentName":"","conversationId":"conv_","conversationType":"phone","status":"completed","outcome":null,'
    b'"outcome":"resolved","summary":"","duration":0,"direction":"outbound","direction":"inbound",'
    b'"agentNumber":"+1","twilioCallSid":"CA","callMetadata":{"customer":{"name":"","phone":"","email":"",'
    b'"company":""},"context":{"campaignType":"customer_support","priority":"normal"},'
    b'"custom":{"orderId":"","accountManager":""}},'
    b'"metadata":{"contactName":"","contactPhone":"+","contactEmail":"@gmail.com"},"organizationId":"org_'
)


def compress(body: bytes) -> bytes:
    """Return a body as it is stored. One that is compressed already, or that would not get smaller, stays as it is."""
    if len(body) > MAX_SIZE or body.startswith(MARK):
        return body
    compressor = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS, zdict=_DICTIONARY)
    compressed = MARK + compressor.compress(body) + compressor.flush()
    return compressed if len(compressed) < len(body) else body


def decompress(stored: bytes) -> bytes:
    """Return the body of a stored one. Raise ValueError if it is damaged."""
    if not stored.startswith(MARK):
        return stored
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS, _DICTIONARY)
    try:
        body = decompressor.decompress(memoryview(stored)[1:], MAX_SIZE + 1)
    except zlib.error as error:
        raise ValueError(f"a stored body is damaged: {error}") from None
    if not decompressor.eof or len(body) > MAX_SIZE:
        raise ValueError("a stored body is damaged: it is incomplete or too large")
    return body
