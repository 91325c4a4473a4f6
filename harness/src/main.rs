//! The `isonorm` command.

fn main() {}
