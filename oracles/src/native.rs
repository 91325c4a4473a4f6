//! libtorch's own fused operators: a second oracle, which shares nothing with the formulas.
//!
//! An operator that libtorch has names it beside its formula ([`crate::operators::Operator::native`]). The backward half is
//! libtorch's autograd through that.

use isonorm_kernels::abi::{Direction, Dtype, Value};
use tch::{TchError, Tensor};

use crate::interpret::torch::{from_bytes, kind, to_bytes};
use crate::problem::Problem;

/// The forward half in libtorch: its outputs, in the order of [`Problem::outputs`].
pub type Forward = fn(&Given<'_>) -> Result<Vec<Tensor>, Declined>;

/// Why libtorch gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum Declined {
    /// It has no such operator.
    #[error("libtorch has no operator {0}")]
    NoOperator(&'static str),
    /// It has the operator, but not in this form.
    #[error("libtorch {0}")]
    OtherForm(&'static str),
    /// It refused.
    #[error("libtorch refuses: {0}")]
    Refused(String),
}

impl From<TchError> for Declined {
    fn from(error: TchError) -> Self {
        // What follows the first line is a trace through libtorch.
        Declined::Refused(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// Answers a problem with libtorch's own operator, on the CPU.
///
/// `inputs` are the dense little-endian elements of [`Problem::inputs`]; the result is those of [`Problem::outputs`]. May be
/// called from several threads at once.
///
/// # Errors
/// [`Declined`], with the reason.
pub fn native(problem: &Problem, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, Declined> {
    let specs = problem.inputs();
    if inputs.len() != specs.len() {
        return Err(TchError::Shape(format!("{} inputs instead of {}", inputs.len(), specs.len())).into());
    }
    let tensors: Result<Vec<Tensor>, TchError> =
        specs.iter().zip(inputs).map(|(spec, bytes)| from_bytes(spec.dtype, &spec.shape, bytes)).collect();
    let outputs = native_tensors(problem, &tensors?)?;
    let bytes = problem.outputs().into_iter().zip(&outputs).map(|(spec, output)| Ok(to_bytes(spec.dtype, output)?));
    bytes.collect()
}

/// The same on tensors, which may lie on any device and have any strides; the inputs are left as they are.
///
/// # Errors
/// [`Declined`], with the reason.
pub fn native_tensors(problem: &Problem, inputs: &[Tensor]) -> Result<Vec<Tensor>, Declined> {
    let forward = problem.operator.native.ok_or(Declined::NoOperator(problem.operator.name))?;
    let specs = problem.inputs();
    let named = |(spec, tensor): (crate::Tensor, &Tensor)| (spec.name, tensor.shallow_clone());
    match problem.direction {
        Direction::Forward => {
            let tensors = specs.into_iter().zip(inputs).map(named).collect();
            tch::no_grad(|| forward(&Given::new(problem, tensors)))
        }
        Direction::Backward => tch::with_grad(|| {
            let outputs = problem.operator.outputs.iter().filter(|output| output.differentiable).count();
            let (gradients, inputs) = inputs.split_at(outputs.min(inputs.len()));
            let mut tensors: Vec<(String, Tensor)> = specs.into_iter().skip(outputs).zip(inputs).map(named).collect();
            let wanted = problem.outputs();
            let mut leaves = Vec::with_capacity(wanted.len());
            for (name, tensor) in &mut tensors {
                if wanted.iter().any(|output| output.name.strip_prefix('d') == Some(name)) {
                    *tensor = tensor.f_detach()?.f_set_requires_grad(true)?;
                    leaves.push(tensor.shallow_clone());
                }
            }
            let results = forward(&Given::new(problem, tensors))?;
            // tch starts autograd from ones: the gradients go in as factors.
            let roots: Result<Vec<Tensor>, TchError> =
                results.iter().zip(gradients).map(|(result, gradient)| result.f_mul(gradient)).collect();
            let gradients = Tensor::f_run_backward(&roots?, &leaves, false, false)?;
            // What nothing flows to has no gradient in libtorch: that is 0.
            let all = gradients.into_iter().zip(&leaves);
            all.map(|(gradient, leaf)| Ok(if gradient.defined() { gradient } else { leaf.f_zeros_like()? })).collect()
        }),
    }
}

/// What a native form is called with.
#[derive(Debug)]
pub struct Given<'a> {
    problem: &'a Problem,
    tensors: Vec<(String, Tensor)>,
    in_place: bool,
}

impl<'a> Given<'a> {
    /// The tensors of a problem, by name. What libtorch updates is updated in a copy.
    pub fn new(problem: &'a Problem, tensors: Vec<(String, Tensor)>) -> Self {
        Given { problem, tensors, in_place: false }
    }

    /// The same, but running statistics are updated where they are, as in training: for benchmarks.
    pub fn in_place(self) -> Self {
        Given { in_place: true, ..self }
    }
}

impl Given<'_> {
    /// The problem.
    pub fn problem(&self) -> &Problem {
        self.problem
    }

    /// An input that is always there.
    ///
    /// # Errors
    /// If it is not.
    pub fn input(&self, name: &str) -> Result<&Tensor, Declined> {
        Ok(self.optional(name).ok_or_else(|| TchError::TensorNameNotFound(name.to_owned(), "the inputs".to_owned()))?)
    }

    /// An input that may be absent.
    pub fn optional(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor)
    }

    /// A tensor that libtorch may write to: a copy, unless [`Given::in_place`].
    ///
    /// # Errors
    /// What libtorch says.
    pub fn copy(&self, name: &str) -> Result<Option<Tensor>, Declined> {
        let writable =
            |tensor: &Tensor| if self.in_place { Ok(tensor.shallow_clone()) } else { tensor.f_detach_copy() };
        Ok(self.optional(name).map(writable).transpose()?)
    }

    /// A weight or bias beside running statistics: libtorch wants the types of both to be the same. The conversion is
    /// to a wider type, hence exact.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn param_like_state(&self, name: &str) -> Result<Option<Tensor>, Declined> {
        let wide = kind(self.problem.dtypes.data.statistics());
        let to_wide = |param: &Tensor| {
            if self.problem.has("running_mean") { param.f_totype(wide) } else { Ok(param.shallow_clone()) }
        };
        Ok(self.optional(name).map(to_wide).transpose()?)
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.problem.real("eps")
    }

    /// The dimensions of an axis.
    pub fn shape(&self, axis: &str) -> Vec<i64> {
        self.problem.dims[axis].iter().map(|&size| size as i64).collect()
    }

    /// Whether data are stored in less than the precision of the arithmetic.
    pub fn is_half(&self) -> bool {
        matches!(self.problem.dtypes.data, Dtype::Bf16 | Dtype::F16)
    }

    /// The weight of a batch in running statistics: `momentum`, or what a cumulative average gives it.
    pub fn momentum(&self) -> f64 {
        match (self.problem.attributes.get("momentum"), self.problem.attributes.get("num_batches_tracked")) {
            (Some(Value::Real(momentum)), _) => *momentum,
            (_, Some(Value::Integer(batches))) => 1.0 / (*batches as f64 + 1.0),
            // Not used: there are no running statistics.
            _ => 0.0,
        }
    }
}
