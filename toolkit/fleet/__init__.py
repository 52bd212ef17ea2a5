"""Plans, rollouts and outcomes: what happens to many boards."""
