"""What every run of the tests has beside pytest's own: limits in time, and no process left over."""
