"""Metrics: functions of (preds, target), and accumulators that hold counts."""
