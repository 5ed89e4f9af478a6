"""Sample data of the mock Heppu API: the agents of an organization, and what was said in a conversation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

VOICE_AGENT = "3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10"
SAMPLE_DETAILS: dict[str, Any] = {
    "transcript": [
        {"role": "assistant", "content": "Harbour Light, how can I help?"},
        {"role": "user", "content": "I would like to move my appointment."},
    ],
    "recordingUrl": "https://recordings.heppu.example/sample.mp3",
}


def sample_agents(now: datetime) -> list[dict[str, Any]]:
    """Return the two agents of the documented samples."""
    common: dict[str, Any] = {
        "status": "active",
        "model": None,
        "instructions": None,
        "tools": [],
        "createdAt": now.isoformat(),
        "updatedAt": now.isoformat(),
    }
    return [
        common
        | {
            "id": VOICE_AGENT,
            "name": "Nora at the front desk",
            "type": "voice",
            "config": {"timeout": 30},
            "phoneNumbers": ["+12125550100"],
        },
        common
        | {
            "id": "b7d1a1f4-52c0-4a0c-8a3e-0d1f2c3b4a59",
            "name": "Harbour help desk",
            "type": "chat",
            "config": {},
            "phoneNumbers": [],
        },
    ]
