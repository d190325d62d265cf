"""From exact cells to published figures: the only way on which anything reaches an analyst."""
