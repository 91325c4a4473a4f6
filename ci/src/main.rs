//! `cargo isonorm`: finds or gets libtorch, builds, and hands over to `isonorm`.

fn main() {}
