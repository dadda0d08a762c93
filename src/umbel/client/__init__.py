"""What runs where the data is: the app, its context, and doing one task."""
