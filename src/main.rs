//! The executable: finds its role and hands over.

fn main() {}
