//! The kernels for the CPU, judged by plain f64 arithmetic. (`isonorm certify` judges them by the exact truth.)

mod bandwidth;
mod channels;
mod common;
mod operators;
mod reference;
mod rows;
mod special;
mod typed;
