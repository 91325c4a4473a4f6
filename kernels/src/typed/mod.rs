//! The kernels as functions on slices and strided views: the way in for programs that only want them fast.
//!
//! [`rms_norm`] and its neighbours take dense slices. [`Operation`] does everything the kernels can: every operator,
//! forward and backward, any strides, optional tensors left out, several threads. Both are a call through the
//! [door](crate::abi) without its text and its allocations.
//!
//! ```
//! use isonorm_kernels::typed::rms_norm;
//!
//! let x = [3.0f32, 4.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
//! let mut y = [0.0; 8];
//! rms_norm(&x, &[1.0; 4], 0.0, &mut y)?; // two rows of four
//! assert_eq!(y, [1.2, 1.6, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
//! # Ok::<(), isonorm_kernels::abi::Refusal>(())
//! ```

mod functions;
mod operation;
mod view;

pub use functions::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use operation::Operation;
pub use view::{Scalar, View, ViewMut};
