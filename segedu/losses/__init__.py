"""Losses: functions of (logits, target) that know no model."""
