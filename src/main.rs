//! The `ridewire` program.

fn main() {}
