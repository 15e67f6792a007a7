"""Seed 000: "Enable Verbose Logging"."""

from __future__ import annotations

import logging

from .test_000_guide import BridgeIntelligenceWorkflow


async def test_verbose_logs_every_step_event_and_context_update(capsys, caplog):
    caplog.set_level(logging.DEBUG, logger="durable_flow")

    workflow = BridgeIntelligenceWorkflow(verbose=True, timeout=60.0)
    # Logs every step execution, event emission, and context update
    await workflow.run(input_data={"query": "a secret", "context": {"domain": "d"}})

    printed, logged = capsys.readouterr().out, "\n".join(caplog.messages)
    for name in ("entry_point", "process", "BridgeEvent", "StopEvent", "query"):
        assert name in printed
        assert name in logged
    assert "a secret" not in printed + logged  # names, never payloads
