"""The mathematics: levels, predictions, schedules, samplers, guidance, losses.  Torch only."""
