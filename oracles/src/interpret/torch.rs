//! The same formula as libtorch tensors: every node one or two of libtorch's operators.
//!
//! Tensors have one dimension per axis of the graph, of size 1 where the node lacks the axis, so that libtorch's own
//! broadcasting is the graph's. libtorch's autograd can run through what comes out.

use isonorm_kernels::abi::Dtype;
use tch::{Device, Kind, TchError, Tensor};

use crate::formula::{Application, Axis, AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary, Window};
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

/// Evaluates a graph in the precision `precision` on a device. In a half type every node is rounded to it.
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
    evaluation.outputs(&graph.live(), |_, _| None)
}

/// Computes an application from its inputs, in their order: tensors with one dimension for each axis of the graph, as the
/// result must have too.
pub type Operators<'a> = &'a dyn Fn(&Application, &[&Tensor]) -> Result<Tensor, String>;

/// The same, with every application computed as a whole by `operators`.
///
/// # Errors
/// What libtorch says, and of which node, or what `operators` says, and of which application.
pub fn torch_with(
    graph: &Graph,
    sizes: &Sizes,
    inputs: &[Tensor],
    precision: Dtype,
    operators: Operators<'_>,
) -> Result<Vec<Tensor>, TorchError> {
    let evaluation = Evaluation { graph, sizes, inputs, options: (kind(precision), Device::Cpu) };
    evaluation.outputs(&graph.live_with_applications(), |id, nodes| {
        let application = graph.application(id)?;
        let inputs: Vec<&Tensor> = application.inputs.iter().map(|&(_, id)| of(nodes, id)).collect();
        let error = |reason| TorchError::Operator { operator: application.operator, reason };
        Some(operators(application, &inputs).map_err(error))
    })
}

/// A node could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// By libtorch.
    #[error("libtorch cannot evaluate {node}: {source}")]
    Node {
        /// Which node.
        node: String,
        /// Why.
        source: TchError,
    },
    /// By what computes operators as a whole.
    #[error("{operator} was not computed: {reason}")]
    Operator {
        /// Which operator.
        operator: &'static str,
        /// Why.
        reason: String,
    },
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
    /// The outputs; `instead` may compute a node otherwise.
    fn outputs(
        &self,
        live: &[bool],
        instead: impl Fn(NodeId, &[Option<Tensor>]) -> Option<Result<Tensor, TorchError>>,
    ) -> Result<Vec<Tensor>, TorchError> {
        let mut nodes: Vec<Option<Tensor>> = Vec::with_capacity(self.graph.nodes.len());
        for (index, (node, &live)) in self.graph.nodes.iter().zip(live).enumerate() {
            let value = || {
                instead(NodeId(index as u32), &nodes).unwrap_or_else(|| {
                    let error = |source| TorchError::Node { node: format!("{:?}", node.op), source };
                    self.node(node.op, node.axes, &nodes).map_err(error)
                })
            };
            let value = if live { Some(value()?) } else { None };
            nodes.push(value);
        }
        Ok(self.graph.outputs.iter().map(|output| of(&nodes, output.node).shallow_clone()).collect())
    }

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
            Op::Unary(Unary::Exp, a) => of(a).f_exp(),
            Op::Unary(Unary::Log, a) => of(a).f_log(),
            Op::Unary(Unary::Tanh, a) => of(a).f_tanh(),
            Op::Unary(Unary::Erf, a) => of(a).f_erf(),
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
                    Reduce::Max => of(a).f_amax(dims, true),
                }
            }
            Op::Contract(a, b, summed) => self.contract(axes, (of(a), a), (of(b), b), summed),
            Op::Window(a, window) => self.window(of(a), window),
            Op::Overlap(a, window) => self.overlap(of(a), window),
            Op::Repeat(a, _) => of(a).f_expand(self.shape(axes), false),
            Op::Detach(a) => of(a).f_detach(),
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

impl Evaluation<'_> {
    /// As `einsum`, which makes matrix products of what are some, with a letter for each axis.
    fn contract(
        &self,
        axes: AxisSet,
        (a, a_id): (&Tensor, NodeId),
        (b, b_id): (&Tensor, NodeId),
        summed: AxisSet,
    ) -> Result<Tensor, TchError> {
        let letters = |axes: AxisSet| axes.iter().map(|axis| char::from(b'A' + axis.0)).collect::<String>();
        let own = |tensor: &Tensor, axes: AxisSet| {
            let shape: Vec<i64> = axes.iter().map(|axis| self.sizes.of(axis) as i64).collect();
            tensor.f_reshape(shape)
        };
        let [a_axes, b_axes] = [a_id, b_id].map(|id| self.graph.node(id).axes);
        debug_assert_eq!(axes, a_axes.union(b_axes).without(summed));
        let equation = format!("{},{}->{}", letters(a_axes), letters(b_axes), letters(axes));
        let product = Tensor::f_einsum(&equation, &[own(a, a_axes)?, own(b, b_axes)?], None::<&[i64]>)?;
        product.f_reshape(self.shape(axes))
    }

    /// For each place and tap the entry that it shows; -1 outside.
    fn entries(&self, window: Window) -> Vec<i64> {
        let taps = window.tap.map_or(1, |tap| self.sizes.of(tap)) as i64;
        let places = 0..self.sizes.of(window.to) as i64;
        let entries = places
            .flat_map(|place| (0..taps).map(move |tap| place * window.stride as i64 + tap - window.before as i64));
        let inside = 0..self.sizes.of(window.from) as i64;
        entries.map(|entry| if inside.contains(&entry) { entry } else { -1 }).collect()
    }

    /// The dimensions `from`, `to` and `tap`, brought to the end in this order.
    fn apart(&self, tensor: &Tensor, window: Window) -> Result<(Tensor, Vec<i64>), TchError> {
        let last: Vec<i64> = [Some(window.from), Some(window.to), window.tap].into_iter().flatten().map(dim).collect();
        let all = 0..self.sizes.0.len() as i64;
        let order: Vec<i64> = all.filter(|axis| !last.contains(axis)).chain(last.iter().copied()).collect();
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &axis)| back[axis as usize] = place as i64);
        Ok((tensor.f_permute(order)?, back))
    }

    fn window(&self, a: &Tensor, window: Window) -> Result<Tensor, TchError> {
        let (apart, back) = self.apart(a, window)?;
        let last = if window.tap.is_some() { 3 } else { 2 };
        let mut shape = apart.size();
        shape.truncate(shape.len() - last);
        // One more entry, of zeros, for what is outside.
        let flat = apart.f_flatten(-(last as i64), -1)?.f_constant_pad_nd([0, 1])?;
        let outside = self.sizes.of(window.from) as i64;
        let entries = self.entries(window).into_iter().map(|entry| if entry < 0 { outside } else { entry });
        let index = Tensor::from_slice(&entries.collect::<Vec<i64>>()).f_to(self.options.1)?;
        shape.extend([1, self.sizes.of(window.to) as i64]);
        shape.extend(window.tap.map(|tap| self.sizes.of(tap) as i64));
        flat.f_index_select(-1, &index)?.f_reshape(shape)?.f_permute(back)
    }

    fn overlap(&self, a: &Tensor, window: Window) -> Result<Tensor, TchError> {
        let (apart, back) = self.apart(a, window)?;
        let last = if window.tap.is_some() { 3 } else { 2 };
        let mut shape = apart.size();
        shape.truncate(shape.len() - last);
        let flat = apart.f_flatten(-(last as i64), -1)?;
        let outside = self.sizes.of(window.from) as i64;
        let entries = self.entries(window).into_iter().map(|entry| if entry < 0 { outside } else { entry });
        let index = Tensor::from_slice(&entries.collect::<Vec<i64>>()).f_to(self.options.1)?;
        let whole = [shape.clone(), vec![outside + 1]].concat();
        let sums = Tensor::f_zeros(whole, self.options)?.f_index_add(-1, &index, &flat)?.f_narrow(-1, 0, outside)?;
        shape.extend([outside, 1]);
        shape.extend(window.tap.map(|_| 1));
        sums.f_reshape(shape)?.f_permute(back)
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
