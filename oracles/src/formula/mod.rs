//! The formula graph and how it is written.

mod builder;
mod graph;

pub use builder::{Builder, Expr};
pub use graph::{
    Application, Axis, AxisSet, Binary, Graph, GraphInput, GraphOutput, Node, NodeId, Op, Reduce, Unary, Window,
};
