"""The app of the four hospitals: their data, their training code, and the federation of both."""
