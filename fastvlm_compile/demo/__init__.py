"""One page that asks a bundle about an image in a browser, and the server that it comes from."""
