"""Operations on boxes, masks, label maps and graphs: functions without parameters or state."""
