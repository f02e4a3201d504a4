"""What is put into a step Pod whose step is memoized inside of it."""
