"""What flows use at run time and the template looks after. It is installed where flows run, and never imports `ops`."""
