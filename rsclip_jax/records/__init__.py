"""What a run writes down: results, outcomes, budgets."""
