"""The attack on what is published (promise P7): tries, everything that is ever shown, and guesses."""
