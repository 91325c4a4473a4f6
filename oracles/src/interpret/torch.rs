//! The same formula as libtorch tensors: every node one or two of libtorch's operators.
//!
//! Tensors have one dimension per axis of the graph, of size 1 where the node lacks the axis, so that libtorch's own
//! broadcasting is the graph's. libtorch's autograd can run through what comes out.

use isonorm_kernels::abi::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::formula::{Axis, AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary};
use crate::storage::Format;

use super::walk::Sizes;

/// The element type in libtorch.
pub fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

/// A tensor of these dense little-endian elements.
///
/// # Errors
/// What libtorch says.
pub fn from_bytes(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Tensor, TchError> {
    let elements: usize = shape.iter().product();
    if bytes.len() != elements * dtype.size() {
        return Err(TchError::Shape(format!("{} bytes for {elements} elements of {dtype}", bytes.len())));
    }
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    Tensor::f_from_data_size(bytes, &shape, kind(dtype))
}

/// The elements of a tensor, rounded to a type, dense and little-endian.
///
/// # Errors
/// What libtorch says.
pub fn to_bytes(dtype: Dtype, tensor: &Tensor) -> Result<Vec<u8>, TchError> {
    let tensor = rounded(tensor, dtype)?.f_totype(kind(dtype))?;
    let mut bytes = vec![0; tensor.numel() * dtype.size()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// Evaluates a graph in the precision `precision` ([`Dtype::F32`] or [`Dtype::F64`]) on a device.
///
/// `inputs`, by the graph's inputs, may have any type, any device and any shape whose row-major order is that of the
/// axes; they are converted. The outputs are in `precision`, before the rounding to their storage type ([`to_bytes`] does
/// it), with one dimension for each axis of the graph, of size 1 where the output lacks it. A cast that the formula
/// states is rounded as stated; its gradient is the identity.
///
/// # Errors
/// What libtorch says, and of which node.
pub fn torch(
    graph: &Graph,
    sizes: &Sizes,
    inputs: &[Tensor],
    precision: Dtype,
    device: Device,
) -> Result<Vec<Tensor>, TorchError> {
    let evaluation = Evaluation { graph, sizes, inputs, options: (kind(precision), device) };
    let mut nodes: Vec<Option<Tensor>> = Vec::with_capacity(graph.nodes.len());
    for (node, live) in graph.nodes.iter().zip(graph.live()) {
        let value = if live {
            let value = evaluation.node(node.op, node.axes, &nodes);
            Some(value.map_err(|source| TorchError { node: format!("{:?}", node.op), source })?)
        } else {
            None
        };
        nodes.push(value);
    }
    Ok(graph.outputs.iter().map(|output| of(&nodes, output.node).shallow_clone()).collect())
}

/// libtorch could not evaluate a node.
#[derive(Debug, thiserror::Error)]
#[error("libtorch cannot evaluate {node}: {source}")]
pub struct TorchError {
    /// Which node.
    pub node: String,
    /// Why.
    pub source: TchError,
}

struct Evaluation<'a> {
    graph: &'a Graph,
    sizes: &'a Sizes,
    inputs: &'a [Tensor],
    options: (Kind, Device),
}

fn of(nodes: &[Option<Tensor>], id: NodeId) -> &Tensor {
    nodes[id.index()].as_ref().expect("operands of live nodes are live and come first")
}

fn dim(axis: Axis) -> i64 {
    i64::from(axis.0)
}

impl Evaluation<'_> {
    fn shape(&self, axes: AxisSet) -> Vec<i64> {
        let all = (0..self.sizes.0.len()).map(|axis| Axis(axis as u8));
        all.map(|axis| if axes.has(axis) { self.sizes.of(axis) as i64 } else { 1 }).collect()
    }

    fn number(&self, value: f64) -> Result<Tensor, TchError> {
        Tensor::f_full(self.shape(AxisSet::NONE), value, self.options)
    }

    fn node(&self, op: Op, axes: AxisSet, nodes: &[Option<Tensor>]) -> Result<Tensor, TchError> {
        let of = |id: NodeId| of(nodes, id);
        match op {
            Op::Input(index) => {
                let Some(input) = self.inputs.get(index) else {
                    return Err(TchError::Shape(format!("input `{}` is missing", self.graph.inputs[index].name)));
                };
                input.f_to(self.options.1)?.f_totype(self.options.0)?.f_reshape(self.shape(axes))
            }
            Op::Constant(value) => self.number(value),
            Op::Count(counted) => self.number(self.sizes.count(counted) as f64),
            Op::Unary(Unary::Neg, a) => of(a).f_neg(),
            Op::Unary(Unary::Square, a) => of(a).f_square(),
            Op::Unary(Unary::Sqrt, a) => of(a).f_sqrt(),
            Op::Unary(Unary::Rsqrt, a) => of(a).f_rsqrt(),
            Op::Binary(Binary::Add, a, b) => of(a).f_add(of(b)),
            Op::Binary(Binary::Sub, a, b) => of(a).f_sub(of(b)),
            Op::Binary(Binary::Mul, a, b) => of(a).f_mul(of(b)),
            Op::Binary(Binary::Div, a, b) => of(a).f_div(of(b)),
            Op::Binary(Binary::Max, a, b) => of(a).f_maximum(of(b)),
            Op::Select { left, right, then, otherwise } => {
                of(then).f_where_self(&of(left).f_ge_tensor(of(right))?, of(otherwise))
            }
            Op::Reduce(reduce, a, reduced) => {
                let dims: Vec<i64> = reduced.iter().map(dim).collect();
                if dims.is_empty() {
                    // To libtorch no dimensions mean all of them.
                    return Ok(of(a).shallow_clone());
                }
                match reduce {
                    Reduce::Sum => of(a).f_sum_dim_intlist(dims, true, None),
                    Reduce::Mean | Reduce::Moment => of(a).f_mean_dim(dims, true, None),
                }
            }
            // The node lacks the axis that is made: its dimension has size 1 and changes places with the cut one.
            Op::Head { of: a, from, to } => {
                of(a).f_narrow(dim(from), 0, self.sizes.of(to) as i64)?.f_transpose(dim(from), dim(to))
            }
            Op::Extend { of: a, from, to } => {
                let missing = self.sizes.of(to) - self.sizes.of(from);
                // Pairs of (before, after), from the last dimension on.
                let mut padding = vec![0; 2 * (self.sizes.0.len() - to.0 as usize)];
                *padding.last_mut().expect("an axis has a dimension") = missing as i64;
                of(a).f_transpose(dim(from), dim(to))?.f_constant_pad_nd(padding)
            }
            Op::Repeat(a, _) => of(a).f_expand(self.shape(axes), false),
            Op::Cast(a, dtype) => {
                let value = of(a);
                let rounded = rounded(value, dtype)?;
                if value.requires_grad() {
                    // Adds 0, with the gradient of the value.
                    rounded.f_detach()?.f_add(&value.f_sub(&value.f_detach()?)?)
                } else {
                    Ok(rounded)
                }
            }
        }
    }
}

/// The values rounded once to a storage type, still in their own type.
fn rounded(value: &Tensor, dtype: Dtype) -> Result<Tensor, TchError> {
    let own = value.f_kind()?;
    if own != Kind::Double || dtype == Dtype::F64 || dtype == Dtype::F32 {
        return value.f_totype(kind(dtype))?.f_totype(own);
    }
    // libtorch rounds f64 to half types by way of f32, which meets false ties.
    let format = Format::of(dtype);
    let exponent = |power_of_two: f64| f64::from(power_of_two.log2() as i32);
    // value = mantissa · 2^e with the mantissa in [0.5, 1).
    let (_, e) = value.f_frexp()?;
    let last_place =
        e.f_totype(own)?.f_sub_scalar(f64::from(format.precision))?.f_clamp_min(exponent(format.smallest))?;
    let ulp = last_place.f_exp2()?;
    let nearest = value.f_div(&ulp)?.f_round()?.f_mul(&ulp)?;
    let special = value.f_isfinite()?.f_logical_not()?;
    let finite = nearest.f_totype(kind(dtype))?.f_totype(own)?;
    value.f_where_self(&special, &finite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{decode, encode};

    #[test]
    fn f64_is_rounded_once_to_half_types() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let format = Format::of(dtype);
            let mut values =
                vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 65519.99, 65520.0, 1e39, -1e300];
            for bits in (0..0x7c00u16).step_by(7) {
                let pair = [bits, bits + 1].map(|bits| decode(dtype, &bits.to_le_bytes())[0]);
                let middle = (pair[0] + pair[1]) / 2.0;
                // Next to a tie: rounded to f32 first, these become ties.
                values.extend([pair[0], middle, middle * (1.0 + 1e-12), -middle * (1.0 - 1e-12)]);
            }
            let got = to_bytes(dtype, &Tensor::from_slice(&values)).expect("libtorch rounds");
            for (&value, got) in values.iter().zip(decode(dtype, &got)) {
                let want = format.round(value);
                assert!(
                    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                    "{value:e}: {got} for {want}"
                );
            }
            let by_way_of_f32: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let mut twice = Vec::new();
            by_way_of_f32.iter().for_each(|&value| encode(dtype, value.into(), &mut twice));
            assert_ne!(twice, got_bytes(dtype, &values), "the values do not tell one rounding from two");
        }
    }

    fn got_bytes(dtype: Dtype, values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        values.iter().for_each(|&value| encode(dtype, value, &mut bytes));
        bytes
    }
}
