//! What happens when the disk does not do its part.
