"""Image super-resolution from interpolation to SRGAN: the book's library."""

__version__ = "0.1.0"
