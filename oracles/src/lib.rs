//! What is true: every operator as one formula, and the interpreters of that formula.
