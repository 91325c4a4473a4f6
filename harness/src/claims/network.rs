//! Programs as libtorch tensors and kernels: parts, one after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use isonorm_oracles::claims::{Act, By, Fold, LEVEL, Mix, Norm, Part, Pass, UNIT};
use tch::{Cuda, Device, Kind, TchError, Tensor};

use super::layers;
use super::norms::{self, Parameters};
use crate::bench::{Timed, What};
use crate::generate::Random;

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// libtorch cannot.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// What all programs of a comparison share: original parameters in f64 by their names, data, and memory to write to. Nobody has
/// better pages than others.
#[derive(Clone, Debug)]
pub struct Shared {
    random: Random,
    made: Rc<RefCell<BTreeMap<String, Tensor>>>,
    memory: Rc<RefCell<BTreeMap<String, Tensor>>>,
}

impl Shared {
    /// None yet.
    pub fn new(random: Random) -> Shared {
        Shared { random, made: Rc::default(), memory: Rc::default() }
    }

    /// Normal numbers of this mean and deviation, the same for the same name.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn get(&self, name: &str, shape: &[i64], mean: f64, deviation: f64) -> Result<Tensor, Trouble> {
        if let Some(known) = self.made.borrow().get(name) {
            return Ok(known.shallow_clone());
        }
        let random = self.random.named(name);
        let count: i64 = shape.iter().product();
        let numbers: Vec<f64> = (0..count as u64).map(|place| mean + deviation * random.normal(2 * place)).collect();
        let tensor = Tensor::from_slice(&numbers).f_reshape(shape)?;
        self.made.borrow_mut().insert(name.to_owned(), tensor.shallow_clone());
        Ok(tensor)
    }

    /// The data, once for each type.
    fn input(&self, shape: &[i64], way: Way) -> Result<Tensor, Trouble> {
        self.once(format!("input {:?} {:?}", way.kind, way.device), || {
            way.place(&self.get("input", shape, 0.02, 0.05)?)
        })
    }

    /// A tensor that is made when it is asked for first.
    fn once(&self, name: String, make: impl FnOnce() -> Result<Tensor, Trouble>) -> Result<Tensor, Trouble> {
        if let Some(known) = self.memory.borrow().get(&name) {
            return Ok(known.shallow_clone());
        }
        let made = make()?;
        self.memory.borrow_mut().insert(name, made.shallow_clone());
        Ok(made)
    }
}

/// How a program is run.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Forward, or forward and backward.
    pub pass: Pass,
    /// f32 as it is measured, f64 for the truth: then norms are evaluated by their definitions.
    pub kind: Kind,
    /// For kernels and loops.
    pub threads: usize,
    /// Where data and parameters are; kernels and loops are for the processor.
    pub device: Device,
}

impl Way {
    /// A tensor in the type that is computed in, where it is computed.
    fn place(&self, tensor: &Tensor) -> Result<Tensor, Trouble> {
        Ok(tensor.f_to_kind(self.kind)?.f_to_device(self.device)?)
    }
}

/// A program with its data and parameters.
pub struct Network {
    parts: Vec<Part>,
    way: Way,
    input: Tensor,
    shared: Shared,
    /// Shared in the type that is computed in, by name.
    parameters: RefCell<BTreeMap<String, Tensor>>,
    /// What was made of parameters, where that is done once.
    made: RefCell<BTreeMap<String, Tensor>>,
    /// Memory that kernels and loops write to, by the name of the norm.
    memory: RefCell<BTreeMap<String, Tensor>>,
    /// What the result is multiplied by to give the loss.
    direction: RefCell<Option<Tensor>>,
}

/// What a program gives.
pub struct Results {
    /// Its output.
    pub output: Tensor,
    /// Gradients by the name of the parameter; empty without a backward half.
    pub gradients: BTreeMap<String, Tensor>,
}

impl Network {
    /// Makes a program ready for data of this shape.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(parts: Vec<Part>, shape: &[i64], shared: &Shared, way: Way) -> Result<Network, Trouble> {
        // Neither mean nor spread is what norms make of them, and ε counts.
        let input = shared.input(shape, way)?;
        let mut network = Network {
            parts,
            way,
            input,
            shared: shared.clone(),
            parameters: RefCell::default(),
            made: RefCell::default(),
            memory: RefCell::default(),
            direction: RefCell::default(),
        };
        network.input = tch::no_grad(|| network.prepared())?;
        Ok(network)
    }

    fn prepared(&self) -> Result<Tensor, Trouble> {
        let before =
            self.parts.iter().filter_map(|part| if let Part::Before(parts) = part { Some(parts) } else { None });
        before.flatten().try_fold(self.input.shallow_clone(), |x, part| self.part(part, &x))
    }

    /// Runs it once.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn run(&self) -> Result<Results, Trouble> {
        if self.way.pass == Pass::Inference {
            let output = tch::no_grad(|| self.parts(&self.parts, &self.input))?;
            return Ok(Results { output, gradients: BTreeMap::new() });
        }
        tch::with_grad(|| {
            let output = self.parts(&self.parts, &self.input)?;
            if self.way.pass == Pass::Kept {
                return Ok(Results { output, gradients: BTreeMap::new() });
            }
            let direction = self.direction(&output)?;
            let loss = output.f_mul(&direction)?.f_sum(None)?;
            let parameters = self.parameters.borrow();
            let leaves: Vec<(&String, &Tensor)> = parameters.iter().filter(|(_, p)| p.requires_grad()).collect();
            let all: Vec<&Tensor> = leaves.iter().map(|(_, leaf)| *leaf).collect();
            let gradients = Tensor::f_run_backward(&[&loss], &all, false, false)?;
            let named = leaves.iter().map(|(name, _)| (*name).clone()).zip(gradients).collect();
            Ok(Results { output: output.detach(), gradients: named })
        })
    }

    /// The gradient that the backward half starts from.
    fn direction(&self, output: &Tensor) -> Result<Tensor, Trouble> {
        if let Some(known) = &*self.direction.borrow() {
            return Ok(known.shallow_clone());
        }
        let made = self.way.place(&self.shared.get("direction", &output.size(), 0.0, 1.0)?)?;
        *self.direction.borrow_mut() = Some(made.shallow_clone());
        Ok(made)
    }

    /// Forgets what it shares: what is needed of that is there.
    pub fn detach(&mut self) {
        self.shared = Shared::new(self.shared.random);
    }

    /// Bytes of all parameters that were used so far.
    pub fn parameter_bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
        self.parameters.borrow().values().map(bytes).sum()
    }

    /// An original parameter, in the type that is computed in.
    pub(super) fn parameter(
        &self,
        name: String,
        shape: &[usize],
        mean: f64,
        deviation: f64,
    ) -> Result<Tensor, Trouble> {
        if let Some(known) = self.parameters.borrow().get(&name) {
            return Ok(known.shallow_clone());
        }
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        // Where a vector lies can matter as much as what is measured, so that all have the same one. A matrix that many
        // programs use would be in the cache more often than what is folded from it: each has its own.
        if self.way.pass == Pass::Inference && shape.len() == 1 {
            let make = || self.way.place(&self.shared.get(&name, &shape, mean, deviation)?);
            let tensor = self.shared.once(format!("{name} {:?} {:?}", self.way.kind, self.way.device), make)?;
            self.parameters.borrow_mut().insert(name, tensor.shallow_clone());
            return Ok(tensor);
        }
        // A copy: originals have no gradients.
        let tensor = tch::no_grad(|| {
            let original = self.shared.get(&name, &shape, mean, deviation)?;
            Ok::<_, Trouble>(self.way.place(&original)?.f_detach_copy()?)
        })?;
        // Statistics are not learned.
        let learned = !name.ends_with(".mean") && !name.ends_with(".variance");
        let tensor = tensor.f_set_requires_grad(learned && self.way.pass != Pass::Inference)?;
        self.parameters.borrow_mut().insert(name, tensor.shallow_clone());
        Ok(tensor)
    }

    /// What is made of parameters: once, or in training every time.
    pub(super) fn made(&self, name: String, make: impl FnOnce() -> Result<Tensor, Trouble>) -> Result<Tensor, Trouble> {
        if self.way.pass != Pass::Inference {
            return make();
        }
        if let Some(known) = self.made.borrow().get(&name) {
            return Ok(known.shallow_clone());
        }
        let made = make()?;
        self.made.borrow_mut().insert(name, made.shallow_clone());
        Ok(made)
    }

    fn parts(&self, parts: &[Part], x: &Tensor) -> Result<Tensor, Trouble> {
        parts.iter().try_fold(x.shallow_clone(), |x, part| match part {
            Part::Before(_) => Ok(x),
            part => self.part(part, &x),
        })
    }

    fn part(&self, part: &Part, x: &Tensor) -> Result<Tensor, Trouble> {
        Ok(match part {
            Part::Norm { name, norm, by, affine } => self.norm(name, *norm, *by, *affine, x)?,
            Part::Residual(parts) => x.f_add(&self.parts(parts, x)?)?,
            Part::Sum(branches) => {
                let all: Result<Vec<Tensor>, Trouble> = branches.iter().map(|parts| self.parts(parts, x)).collect();
                let mut all = all?.into_iter();
                let first = all.next().ok_or_else(|| Trouble::Other("a sum of nothing".to_owned()))?;
                all.try_fold(first, |sum, next| sum.f_add(&next))?
            }
            Part::Linear { name, sizes, fold } => {
                let (weight, bias) = self.linear(name, *sizes, fold)?;
                x.f_linear(&weight, Some(&bias))?
            }
            Part::DeferredLinear { name, sizes, norm } => {
                let (weight, bias) = self.linear(name, *sizes, &Fold::Weight(norm.clone()))?;
                let squares = x.f_mul(x)?.f_mean_dim([-1i64].as_slice(), true, None)?;
                let scale = squares.f_add_scalar(norms::EPS)?.f_rsqrt()?;
                bias.f_addcmul(&x.f_matmul(&weight.f_tr()?)?, &scale)?
            }
            Part::Act(Act::Relu) => x.f_relu()?,
            Part::Act(Act::Gelu) => x.f_gelu("none")?,
            Part::Act(Act::SwiGlu) => {
                let halves = x.f_chunk(2, -1)?;
                halves[0].f_silu()?.f_mul(&halves[1])?
            }
            Part::Attention { heads, mix: Mix::Values, .. } => layers::attention(x, *heads as i64)?,
            Part::ShapedAttention { name, heads } => layers::shaped_attention(self, name, *heads as i64, x)?,
            Part::Recurrent { name, norm } => layers::recurrent(self, name, *norm, x)?,
            Part::Fire { name, when } => layers::fire(self, name, *when, x)?,
            Part::AsImages => layers::as_images(x)?,
            Part::Convolution { name, standardized } => layers::convolution(self, name, *standardized, x)?,
            Part::BatchNorm { name, batch, learned, sparing } => {
                layers::batch_norm(self, name, *batch, *learned, *sparing, x)?
            }
            Part::ToLevels => {
                let levels = x.f_div_scalar(LEVEL)?.f_round()?.f_clamp(-128, 127)?;
                if self.is_exact() { levels } else { levels.f_to_kind(Kind::Int8)? }
            }
            Part::FromLevels => x.f_to_kind(self.way.kind)?.f_mul_scalar(LEVEL)?,
            Part::ToUnits if self.is_exact() => x.shallow_clone(),
            Part::ToUnits => x.f_div_scalar(UNIT)?.f_round()?.f_clamp(-128, 127)?.f_to_kind(Kind::Int8)?,
            Part::IntegerLayerNorm { .. } if self.is_exact() => {
                norms::definition(Norm::Layer, &x.f_mul_scalar(LEVEL)?, &Parameters::default())?
            }
            Part::IntegerLayerNorm { name } => {
                let mut y = self.memory(name, x)?;
                norms::integer(x, &mut y)?;
                y
            }
            Part::Centre => centred(x, -1)?,
            Part::CentreAndDrop => without_last(&centred(x, -1)?, -1)?,
            Part::Before(parts) => self.parts(parts, x)?,
        })
    }

    pub(super) fn norm(&self, name: &str, norm: Norm, by: By, affine: bool, x: &Tensor) -> Result<Tensor, Trouble> {
        let width = x.size().last().copied().unwrap_or(0) as usize;
        let of = self.norm_parameters(name, norm, affine, width)?;
        if self.is_exact() {
            return norms::definition(norm, x, &of);
        }
        match by {
            By::Steps if norm == Norm::Affine => {
                let (scale, shift) = self.scale_and_shift(name, &of)?;
                Ok(x.f_mul(&scale)?.f_add(&shift)?)
            }
            By::Libtorch if norm == Norm::Affine => {
                let (scale, shift) = self.scale_and_shift(name, &of)?;
                Ok(shift.f_addcmul(x, &scale)?)
            }
            By::Steps => norms::steps(norm, x, &of),
            By::Libtorch => norms::libtorch(norm, x, &of),
            By::ThreeSweeps | By::TwoSweeps | By::Kernel if self.way.pass != Pass::Inference => {
                Err(Trouble::Other("kernels and loops have no gradients".to_owned()))
            }
            By::Kernel => self.in_memory(name, norm, by, x, &of),
            By::ThreeSweeps | By::TwoSweeps => {
                let (weight, bias) = if norm == Norm::Affine {
                    self.scale_and_shift(name, &of)?
                } else {
                    let full = |what: &str, given: &Option<Tensor>, value: f64| match given {
                        Some(given) => Ok(given.shallow_clone()),
                        None => self.made(format!("{name}.{what}"), || {
                            Ok(Tensor::f_full([width as i64], value, (Kind::Float, Device::Cpu))?)
                        }),
                    };
                    (full("ones", &of.weight, 1.0)?, full("zeros", &of.bias, 0.0)?)
                };
                let of = Parameters { weight: Some(weight), bias: Some(bias), statistics: None };
                self.in_memory(name, norm, by, x, &of)
            }
        }
    }

    fn in_memory(&self, name: &str, norm: Norm, by: By, x: &Tensor, of: &Parameters) -> Result<Tensor, Trouble> {
        let x = x.f_contiguous()?;
        let mut y = self.memory(name, &x)?;
        norms::into_memory(norm, by, &x, of, &mut y, self.way.threads)?;
        Ok(y)
    }

    /// Memory for what a norm makes of this.
    fn memory(&self, name: &str, like: &Tensor) -> Result<Tensor, Trouble> {
        if let Some(known) = self.memory.borrow().get(name) {
            return Ok(known.shallow_clone());
        }
        let alike = format!("{name} {:?} {:?}", like.kind(), like.size());
        let memory = self.shared.once(alike, || Ok(like.f_zeros_like()?))?;
        self.memory.borrow_mut().insert(name.to_owned(), memory.shallow_clone());
        Ok(memory)
    }

    /// Whether it is the truth that is computed.
    pub(super) fn is_exact(&self) -> bool {
        self.way.kind == Kind::Double
    }

    pub(super) fn linear_layer(&self, name: &str, sizes: (usize, usize), x: &Tensor) -> Result<Tensor, Trouble> {
        let (weight, bias) = self.linear(name, sizes, &Fold::None)?;
        Ok(x.f_linear(&weight, Some(&bias))?)
    }

    pub(super) fn norm_parameters(
        &self,
        name: &str,
        norm: Norm,
        affine: bool,
        width: usize,
    ) -> Result<Parameters, Trouble> {
        let vector = |what: &str, mean, deviation| self.parameter(format!("{name}.{what}"), &[width], mean, deviation);
        let has_bias = matches!(norm, Norm::Layer | Norm::Affine);
        Ok(Parameters {
            weight: if affine { Some(vector("weight", 1.0, 0.2)?) } else { None },
            bias: if affine && has_bias { Some(vector("bias", 0.0, 0.1)?) } else { None },
            statistics: match norm {
                Norm::Affine => Some((vector("mean", 0.02, 0.01)?, vector("variance", 0.01, 0.001)?)),
                _ => None,
            },
        })
    }

    fn scale_and_shift(&self, name: &str, of: &Parameters) -> Result<(Tensor, Tensor), Trouble> {
        let scale = self.made(format!("{name}.scale"), || Ok(of.affine()?.0))?;
        let shift = self.made(format!("{name}.shift"), || Ok(of.affine()?.1))?;
        Ok((scale, shift))
    }

    /// The matrix `[out, in]` and the bias that are used.
    fn linear(&self, name: &str, (inputs, outputs): (usize, usize), fold: &Fold) -> Result<(Tensor, Tensor), Trouble> {
        let deviation = 1.0 / (inputs as f64).sqrt();
        let original = || -> Result<(Tensor, Tensor), Trouble> {
            let weight = self.parameter(format!("{name}.weight"), &[outputs, inputs], 0.0, deviation)?;
            Ok((weight, self.parameter(format!("{name}.bias"), &[outputs], 0.05, 0.1)?))
        };
        if *fold == Fold::None {
            return original();
        }
        let weight = self.made(format!("{name}.weight {fold:?}"), || {
            let (weight, _) = original()?;
            Ok(match fold {
                Fold::None => weight,
                Fold::Weight(norm) => {
                    weight.f_mul(&self.parameter(format!("{norm}.weight"), &[inputs], 1.0, 0.2)?)?
                }
                Fold::Affine(norm) => {
                    weight.f_mul(&self.norm_parameters(norm, Norm::Affine, true, inputs)?.affine()?.0)?
                }
                Fold::Centred => centred(&weight, 0)?,
                Fold::CentredAndDropped => without_last(&centred(&weight, 0)?, 0)?,
                Fold::WithoutLast => without_last(&weight, 1)?.f_sub(&weight.f_narrow(1, inputs as i64 - 1, 1)?)?,
            })
        })?;
        let bias = self.made(format!("{name}.bias {fold:?}"), || {
            let (weight, bias) = original()?;
            Ok(match fold {
                Fold::None | Fold::Weight(_) | Fold::WithoutLast => bias,
                Fold::Affine(norm) => {
                    let (_, shift) = self.norm_parameters(norm, Norm::Affine, true, inputs)?.affine()?;
                    bias.f_add(&weight.f_mv(&shift)?)?
                }
                Fold::Centred => centred(&bias, 0)?,
                Fold::CentredAndDropped => without_last(&centred(&bias, 0)?, 0)?,
            })
        })?;
        Ok((weight, bias))
    }
}

impl Timed for Network {
    fn call(&mut self) -> Result<(), String> {
        drop(std::hint::black_box(self.run().map_err(|trouble| trouble.to_string())?));
        Ok(())
    }

    fn time(&mut self, _what: What, times: u32) -> Result<f64, String> {
        let wait = || {
            if let Device::Cuda(gpu) = self.way.device {
                Cuda::synchronize(gpu as i64)
            }
        };
        wait();
        let started = Instant::now();
        (0..times)
            .try_for_each(|_| self.run().map(|results| drop(std::hint::black_box(results))))
            .map_err(|trouble| trouble.to_string())?;
        wait();
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Without the mean along an axis.
pub(super) fn centred(x: &Tensor, axis: i64) -> Result<Tensor, Trouble> {
    Ok(x.f_sub(&x.f_mean_dim([axis].as_slice(), true, None)?)?)
}

fn without_last(x: &Tensor, axis: i64) -> Result<Tensor, Trouble> {
    let sizes = x.size();
    let length = sizes[if axis < 0 { sizes.len() - 1 } else { axis as usize }];
    Ok(x.f_narrow(axis, 0, length - 1)?.f_contiguous()?)
}
