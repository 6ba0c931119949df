"""How to draw a slice of an imaginary patient: change a line, and every patient is another one."""
