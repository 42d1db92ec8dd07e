"""What layers are made of: base classes, masks, shapes, arguments."""
