//! Norms of rows in every way that claims are about.

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};
use isonorm_kernels::typed::{Operation, View, ViewMut};
use isonorm_oracles::Problem;
use isonorm_oracles::claims::{By, Norm};
use isonorm_oracles::interpret::torch::torch;
use isonorm_oracles::operators;
use tch::{Device, Kind, Tensor};

use super::network::Trouble;
use super::sweeps;

/// ε of all norms.
pub const EPS: f64 = 1e-5;

/// Entries that pRMSNorm takes the root mean square of: `⌈share · width⌉`.
pub fn head(share: f64, width: usize) -> usize {
    ((share * width as f64).ceil() as usize).min(width)
}

/// Parameters of a norm: those of [`Norm::Affine`] have been made a scale and a shift where only those are needed.
#[derive(Debug, Default)]
pub struct Parameters {
    /// By entry.
    pub weight: Option<Tensor>,
    /// By entry.
    pub bias: Option<Tensor>,
    /// Fixed mean and variance by entry.
    pub statistics: Option<(Tensor, Tensor)>,
}

impl Parameters {
    /// Scale and shift of a norm with fixed statistics.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn affine(&self) -> Result<(Tensor, Tensor), Trouble> {
        let (Some((mean, variance)), Some(weight), Some(bias)) = (&self.statistics, &self.weight, &self.bias) else {
            return Err(Trouble::Other("it has no fixed statistics".to_owned()));
        };
        let scale = variance.f_add_scalar(EPS)?.f_rsqrt()?.f_mul(weight)?;
        let shift = bias.f_sub(&mean.f_mul(&scale)?)?;
        Ok((scale, shift))
    }
}

/// One tensor operation for each step.
///
/// # Errors
/// What libtorch says.
pub fn steps(norm: Norm, x: &Tensor, of: &Parameters) -> Result<Tensor, Trouble> {
    let mean = |x: &Tensor| x.f_mean_dim([-1i64].as_slice(), true, None);
    let (x, mean_square) = match norm {
        Norm::Layer => {
            let centred = x.f_sub(&mean(x)?)?;
            let variance = mean(&centred.f_mul(&centred)?)?;
            (centred, variance)
        }
        Norm::Rms => (x.shallow_clone(), mean(&x.f_mul(x)?)?),
        Norm::PartialRms(share) => {
            let width = x.size().last().copied().unwrap_or(0);
            let head = x.f_narrow(-1, 0, head(share, width as usize) as i64)?;
            (x.shallow_clone(), mean(&head.f_mul(&head)?)?)
        }
        Norm::CompressedRms => {
            let sum = |x: &Tensor| x.f_sum_dim_intlist([-1i64].as_slice(), true, None);
            let total = sum(x)?;
            let squares = sum(&x.f_mul(x)?)?.f_add(&total.f_mul(&total)?)?;
            (x.shallow_clone(), squares.f_div_scalar(x.size().last().copied().unwrap_or(0) + 1)?)
        }
        Norm::Affine => {
            let (scale, shift) = of.affine()?;
            return Ok(x.f_mul(&scale)?.f_add(&shift)?);
        }
    };
    let mut y = x.f_mul(&mean_square.f_add_scalar(EPS)?.f_rsqrt()?)?;
    if let Some(weight) = &of.weight {
        y = y.f_mul(weight)?;
    }
    if let Some(bias) = &of.bias {
        y = y.f_add(bias)?;
    }
    Ok(y)
}

/// libtorch's own operator.
///
/// # Errors
/// What libtorch says, or that it has none.
pub fn libtorch(norm: Norm, x: &Tensor, of: &Parameters) -> Result<Tensor, Trouble> {
    let width = [x.size().last().copied().unwrap_or(0)];
    let (weight, bias) = (of.weight.as_ref(), of.bias.as_ref());
    Ok(match norm {
        Norm::Layer => x.f_layer_norm(width, weight, bias, EPS, false)?,
        Norm::Rms => x.f_rms_norm(width, weight, EPS)?,
        Norm::Affine => {
            let (scale, shift) = of.affine()?;
            shift.f_addcmul(x, &scale)?
        }
        Norm::PartialRms(_) | Norm::CompressedRms => {
            return Err(Trouble::Other(format!("libtorch has no operator for {norm:?}")));
        }
    })
}

/// The name of the operator that defines a norm.
fn operator(norm: Norm) -> &'static str {
    match norm {
        Norm::Layer => "layer_norm",
        Norm::Rms => "rms_norm",
        Norm::PartialRms(_) => "partial_rms_norm",
        Norm::CompressedRms => "crms_norm",
        Norm::Affine => "batch_norm_inference",
    }
}

/// The definition, evaluated in the type of the data by libtorch's elementary operators: the truth in f64.
///
/// # Errors
/// What libtorch says.
pub fn definition(norm: Norm, x: &Tensor, of: &Parameters) -> Result<Tensor, Trouble> {
    let shape = x.size();
    let width = shape.last().copied().unwrap_or(0) as usize;
    let rows = x.numel() / width.max(1);
    let operator =
        operators::find(operator(norm)).ok_or_else(|| Trouble::Other(format!("{norm:?} has no definition")))?;
    let dtype = if x.kind() == Kind::Double { Dtype::F64 } else { Dtype::F32 };
    let by_channel = operator.axes.iter().any(|axis| axis.name == "c");
    let mut problem = Problem {
        operator,
        direction: Direction::Forward,
        dtypes: DtypeSet::uniform(dtype),
        dims: if by_channel {
            [("n", vec![rows]), ("c", vec![width]), ("s", vec![])].into()
        } else {
            [("r", vec![rows]), ("d", vec![width])].into()
        },
        attributes: operator.default_attributes(),
        given: Default::default(),
    };
    problem.attributes.insert("eps", Value::Real(EPS));
    if let Norm::PartialRms(share) = norm {
        problem.attributes.insert("p", Value::Real(share));
    }
    let (weight, bias) = (of.weight.as_ref(), of.bias.as_ref());
    let (mean, variance) = of.statistics.as_ref().map_or((None, None), |(mean, variance)| (Some(mean), Some(variance)));
    let all = [("x", Some(x)), ("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", variance)];
    let tensor = |name: &str| all.iter().find(|(own, _)| *own == name).and_then(|(_, tensor)| *tensor);
    problem.given = operator.inputs.iter().filter(|i| i.optional && tensor(i.name).is_some()).map(|i| i.name).collect();
    problem.validate().map_err(|error| Trouble::Other(error.to_string()))?;
    let inputs: Result<Vec<Tensor>, Trouble> = problem
        .inputs()
        .iter()
        .map(|input| {
            let found = tensor(&input.name).ok_or_else(|| Trouble::Other(format!("{} is missing", input.name)))?;
            Ok(found.shallow_clone())
        })
        .collect();
    let outputs = torch(&problem.graph(), &problem.sizes(), &inputs?, dtype, Device::Cpu)
        .map_err(|error| Trouble::Other(error.to_string()))?;
    Ok(outputs[0].f_reshape(&shape)?)
}

/// The built-in kernel, or a plain loop, into memory that is there.
///
/// # Errors
/// What the kernel says, or that there is no such loop.
pub fn into_memory(
    norm: Norm,
    by: By,
    x: &Tensor,
    of: &Parameters,
    y: &mut Tensor,
    threads: usize,
) -> Result<(), Trouble> {
    let width = x.size().last().copied().unwrap_or(0) as usize;
    let rows = x.numel() / width.max(1);
    // SAFETY: `y` was made for this alone, and nobody else looks at it now.
    let (x, y) = unsafe { (floats(x)?, floats_mut(y)?) };
    let (weight, bias) = (entries(of.weight.as_ref())?, entries(of.bias.as_ref())?);
    if by != By::Kernel {
        let (Some(weight), Some(bias)) = (weight, bias) else {
            return Err(Trouble::Other("a plain loop wants a weight and a bias".to_owned()));
        };
        return sweeps::run(norm, by, x, weight, bias, y).map_err(Trouble::Other);
    }
    let refused = |refusal: isonorm_kernels::abi::Refusal| Trouble::Other(refusal.to_string());
    let name = std::ffi::CString::new(operator(norm)).unwrap_or_default();
    let x = View::dense(x, &[rows, width]).map_err(refused)?;
    let mut y = ViewMut::dense(y, &[rows, width]).map_err(refused)?;
    let (mean, variance) = of.statistics.as_ref().map_or((None, None), |(mean, variance)| (Some(mean), Some(variance)));
    let given = [
        (c"weight", vector(weight, width)?),
        (c"bias", vector(bias, width)?),
        (c"running_mean", vector(entries(mean)?, width)?),
        (c"running_var", vector(entries(variance)?, width)?),
    ];
    let mut call = Operation::new(&name, Direction::Forward).input(c"x", &x).output(c"y", &mut y).real(c"eps", EPS);
    call = match norm {
        Norm::Layer => call.integer(c"normalized_ndim", 1),
        Norm::Rms => call.integer(c"normalized_ndim", 1).text(c"cast", c"none"),
        Norm::PartialRms(share) => {
            call.integer(c"normalized_ndim", 1).real(c"p", share).integer(c"k", head(share, width) as i64)
        }
        Norm::CompressedRms | Norm::Affine => call,
    };
    for (name, view) in &given {
        if let Some(view) = view {
            call = call.input(name, view);
        }
    }
    call.threads(threads).run().map_err(refused)
}

/// LayerNorm in whole numbers, from levels to units.
///
/// # Errors
/// If these are no dense tensors of whole numbers of 8 bits.
pub fn integer(x: &Tensor, y: &mut Tensor) -> Result<(), Trouble> {
    for tensor in [x, &*y] {
        if tensor.kind() != Kind::Int8 || !tensor.is_contiguous() || tensor.numel() != x.numel() {
            return Err(Trouble::Other("dense tensors of whole numbers of 8 bits are needed".to_owned()));
        }
    }
    let width = x.size().last().copied().unwrap_or(0) as usize;
    // SAFETY: so many whole numbers lie in either; `y` was made for this alone, and nobody else looks at it now.
    let (x, y) = unsafe {
        (
            std::slice::from_raw_parts(x.data_ptr().cast::<i8>(), x.numel()),
            std::slice::from_raw_parts_mut(y.data_ptr().cast::<i8>(), y.numel()),
        )
    };
    sweeps::integer_layer_norm(x, width, y);
    Ok(())
}

/// The elements of a parameter, if it is there.
fn entries(tensor: Option<&Tensor>) -> Result<Option<&[f32]>, Trouble> {
    // SAFETY: parameters do not change while a program runs.
    tensor.map(|tensor| unsafe { floats(tensor) }).transpose()
}

/// A parameter as kernels get it.
fn vector(entries: Option<&[f32]>, width: usize) -> Result<Option<View<'_, f32>>, Trouble> {
    let view = entries.map(|entries| View::dense(entries, &[width])).transpose();
    view.map_err(|refusal| Trouble::Other(refusal.to_string()))
}

/// The elements of a dense tensor of f32 on the CPU.
///
/// # Safety
/// They do not change while the slice is there.
unsafe fn floats(tensor: &Tensor) -> Result<&[f32], Trouble> {
    dense(tensor)?;
    // SAFETY: so many initialised f32 lie there, as long as the tensor; the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// The same to be written to.
///
/// # Safety
/// Nobody else looks at them while the slice is there.
unsafe fn floats_mut(tensor: &mut Tensor) -> Result<&mut [f32], Trouble> {
    dense(tensor)?;
    // SAFETY: as above.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

fn dense(tensor: &Tensor) -> Result<(), Trouble> {
    if tensor.kind() == Kind::Float && tensor.is_contiguous() && tensor.device() == Device::Cpu {
        return Ok(());
    }
    Err(Trouble::Other(format!("a dense tensor of f32 is needed, not {tensor:?}")))
}
