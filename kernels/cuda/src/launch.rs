//! From a kernel of a manifest and a call to launches with numbers in them.

use std::fmt;
use std::str::FromStr;

use isonorm_kernels::abi::{self, Dtype, DtypeSet};
use minijinja::Value;

use crate::expression::{Expression, ExpressionError, Scope, whole};
use crate::manifest::Kernel;

/// The most threads, blocks or bytes that a manifest's number can be.
const MOST: u64 = u32::MAX as u64;
/// The most elements of a scratch buffer.
const MOST_ELEMENTS: u64 = 1 << 32;

/// An argument as a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The address of a tensor; null if the call has none of this name.
    Tensor(String),
    /// The address of a scratch buffer.
    Scratch(String),
    /// A null pointer.
    Null,
    /// A number.
    Scalar(Expression, ScalarType),
}

/// The type of a scalar argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// `int`.
    I32,
    /// `long long`.
    I64,
    /// `unsigned`.
    U32,
    /// `unsigned long long`, `size_t`.
    U64,
    /// `float`.
    F32,
    /// `double`.
    F64,
}

impl ScalarType {
    /// The names, for people.
    pub const NAMES: &str = "i32, i64, u32, u64, f32, f64";

    const ALL: [(&str, ScalarType); 6] = [
        ("i32", ScalarType::I32),
        ("i64", ScalarType::I64),
        ("u32", ScalarType::U32),
        ("u64", ScalarType::U64),
        ("f32", ScalarType::F32),
        ("f64", ScalarType::F64),
    ];

    /// The bytes of a value; none if the type does not hold it.
    fn bytes(self, value: &Value) -> Option<Vec<u8>> {
        let integer = whole(value);
        let real = || f64::try_from(value.clone()).ok().or(integer.map(|number| number as f64));
        Some(match self {
            ScalarType::I32 => i32::try_from(integer?).ok()?.to_le_bytes().to_vec(),
            ScalarType::I64 => i64::try_from(integer?).ok()?.to_le_bytes().to_vec(),
            ScalarType::U32 => u32::try_from(integer?).ok()?.to_le_bytes().to_vec(),
            ScalarType::U64 => u64::try_from(integer?).ok()?.to_le_bytes().to_vec(),
            ScalarType::F32 => (real()? as f32).to_le_bytes().to_vec(),
            ScalarType::F64 => real()?.to_le_bytes().to_vec(),
        })
    }
}

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ScalarType::ALL.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for ScalarType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ScalarType::ALL.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        found.ok_or_else(|| format!("`{text}` is no type of a number; it can be {}", ScalarType::NAMES))
    }
}

/// A call, as far as launches depend on it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The sizes of the operator's axes, by name.
    pub sizes: Vec<(String, usize)>,
    /// The operator's attributes; none where an optional one is absent.
    pub attributes: Vec<(String, Option<abi::Value>)>,
    /// The element types of data and parameters.
    pub dtypes: DtypeSet,
    /// The operator's tensors, with their element types; none where an optional one is absent.
    pub tensors: Vec<(String, Option<Dtype>)>,
    /// Whether the tensors that can lie so have their channels last.
    pub channels_last: bool,
    /// Multiprocessors of the device.
    pub sms: u32,
    /// The architecture that is compiled for, as a number: 90 for `sm_90`.
    pub arch: u32,
}

/// What a call is: launches on one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The scratch buffers, with their bytes.
    pub scratch: Vec<(String, u64)>,
    /// The launches, in order.
    pub steps: Vec<Step>,
}

/// A launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is launched: a C++ name expression, a PTX name, or a function's name.
    pub entry: String,
    /// In order.
    pub arguments: Vec<Given>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block; none where the compiler decides.
    pub block: Option<[u32; 3]>,
    /// Blocks of a cluster; none where the manifest says nothing.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory; none where the manifest says nothing.
    pub shared: Option<u32>,
    /// Triton: constants by name, as Python writes them.
    pub constants: Vec<(String, String)>,
    /// Triton: warps of a program.
    pub num_warps: Option<u32>,
    /// Triton: stages of loops.
    pub num_stages: Option<u32>,
}

/// How a launch is divided.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// An argument of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The address of a tensor that the call has.
    Tensor(String, Dtype),
    /// The address of a scratch buffer.
    Scratch(String, Dtype),
    /// A null pointer.
    Null,
    /// A number: its bytes.
    Scalar(ScalarType, Vec<u8>),
}

impl Given {
    /// What it is, for people and as far as its type goes: `*bf16`, `i32`, `null`.
    pub fn kind(&self) -> String {
        match self {
            Given::Tensor(_, dtype) | Given::Scratch(_, dtype) => format!("*{dtype}"),
            Given::Null => "null".to_owned(),
            Given::Scalar(kind, _) => kind.to_string(),
        }
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        match self {
            Given::Scalar(_, bytes) => bytes.len() as u64,
            _ => 8,
        }
    }

    /// Its value, if it is a whole number.
    pub fn integer(&self) -> Option<i128> {
        let Given::Scalar(kind, bytes) = self else { return None };
        let signed = matches!(kind, ScalarType::I32 | ScalarType::I64);
        if matches!(kind, ScalarType::F32 | ScalarType::F64) {
            return None;
        }
        let unsigned = bytes.iter().rev().fold(0i128, |number, byte| number << 8 | i128::from(*byte));
        let bits = 8 * bytes.len();
        Some(if signed && unsigned >> (bits - 1) != 0 { unsigned - (1 << bits) } else { unsigned })
    }
}

/// Why a call has no launches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The kernel does not serve such a call, and says why.
    #[error("{0}")]
    Declined(String),
    /// The manifest does not fit the call.
    #[error("{0}")]
    Expression(#[from] ExpressionError),
    /// The manifest does not fit the operator.
    #[error("{0}")]
    Names(String),
}

/// The name of an element type in CUDA C++.
pub fn cuda_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::Bf16 => "__nv_bfloat16",
        Dtype::F16 => "__half",
    }
}

impl Kernel {
    /// The launches of a call.
    ///
    /// # Errors
    /// If the kernel declines the call, or the manifest does not fit it: the key, the expression, and its values.
    pub fn plan(&self, call: &Call) -> Result<Plan, PlanError> {
        for (axis, sizes) in &self.sizes {
            let size = call.sizes.iter().find(|(name, _)| name == axis).map(|(_, size)| *size);
            if size.is_some_and(|size| !sizes.contains(&size)) {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                return Err(PlanError::Declined(format!("compiled for {axis} = {} only", sizes.join(", "))));
            }
        }
        let mut scope = scope(call);
        scope.insert("direction".to_owned(), Value::from(self.info.direction.to_string()));
        for (name, expression) in &self.values {
            if scope.contains_key(name) {
                return Err(PlanError::Names(format!("`let.{name}` takes a name that means something else already")));
            }
            scope.insert(name.clone(), expression.value(&scope)?);
        }
        for requirement in &self.requires {
            if !requirement.that.truth(&scope)? {
                return Err(PlanError::Declined(requirement.because.clone()));
            }
        }
        let mut buffers = Vec::new();
        for scratch in &self.scratch {
            let elements = scratch.elements.size(&scope, MOST_ELEMENTS)?;
            buffers.push((scratch.name.clone(), elements * scratch.dtype.size() as u64));
        }
        let mut steps = Vec::new();
        for launch in &self.launches {
            let left_out = match &launch.when {
                Some(when) => !when.truth(&scope)?,
                None => false,
            };
            if left_out {
                continue;
            }
            let number = |expression: &Option<Expression>| -> Result<Option<u32>, ExpressionError> {
                expression.as_ref().map(|expression| Ok(expression.size(&scope, MOST)? as u32)).transpose()
            };
            let constant =
                |(name, expression): &(String, Expression)| Ok((name.clone(), python(&expression.value(&scope)?)));
            let optional = |sizes: &[Expression]| -> Result<Option<[u32; 3]>, ExpressionError> {
                if sizes.is_empty() { Ok(None) } else { extent(sizes, &scope).map(Some) }
            };
            let arguments = launch.arguments.iter().map(|argument| self.given(argument, call, &scope));
            steps.push(Step {
                entry: launch.entry.render(&scope)?,
                arguments: arguments.collect::<Result<_, PlanError>>()?,
                grid: extent(&launch.grid, &scope)?,
                block: optional(&launch.block)?,
                cluster: optional(&launch.cluster)?,
                shared: number(&launch.shared)?,
                constants: launch.constants.iter().map(constant).collect::<Result<_, ExpressionError>>()?,
                num_warps: number(&launch.num_warps)?,
                num_stages: number(&launch.num_stages)?,
            });
        }
        Ok(Plan { scratch: buffers, steps })
    }

    fn given(&self, argument: &Argument, call: &Call, scope: &Scope) -> Result<Given, PlanError> {
        match argument {
            Argument::Null => Ok(Given::Null),
            Argument::Scratch(name) => {
                let dtype = self.scratch.iter().find(|scratch| scratch.name == *name).map(|scratch| scratch.dtype);
                let unknown = || PlanError::Names(format!("there is no scratch buffer `{name}`"));
                dtype.map(|dtype| Given::Scratch(name.clone(), dtype)).ok_or_else(unknown)
            }
            Argument::Tensor(name) => match call.tensors.iter().find(|(own, _)| own == name) {
                Some((_, Some(dtype))) => Ok(Given::Tensor(name.clone(), *dtype)),
                Some((_, None)) => Ok(Given::Null),
                None => {
                    let known: Vec<&str> = call.tensors.iter().map(|(name, _)| name.as_str()).collect();
                    let known = known.join(", ");
                    Err(PlanError::Names(format!(
                        "`arguments` has `{name}`; the tensors of {} {} are {known} (a number is `{name}: i32`)",
                        self.info.operator, self.info.direction
                    )))
                }
            },
            Argument::Scalar(expression, kind) => {
                let value = expression.value(scope)?;
                let bytes = kind.bytes(&value).ok_or_else(|| expression.unlike(&kind.to_string(), &value, scope))?;
                Ok(Given::Scalar(*kind, bytes))
            }
        }
    }
}

fn scope(call: &Call) -> Scope {
    let mut scope = Scope::new();
    for (name, value) in &call.attributes {
        let value = match value {
            None => Value::from(()),
            Some(abi::Value::Real(real)) => Value::from(*real),
            Some(abi::Value::Integer(integer)) => Value::from(*integer),
            Some(abi::Value::Text(text)) => Value::from(text.as_str()),
        };
        scope.insert(name.clone(), value);
    }
    scope.extend(call.sizes.iter().map(|(name, size)| (name.clone(), Value::from(*size))));
    let DtypeSet { data, param } = call.dtypes;
    let has: Scope = call.tensors.iter().map(|(name, dtype)| (name.clone(), Value::from(dtype.is_some()))).collect();
    let more = [
        ("data", Value::from(cuda_name(data))),
        ("param", Value::from(cuda_name(param))),
        ("data_size", Value::from(data.size())),
        ("param_size", Value::from(param.size())),
        ("has", Value::from_pairs(has)),
        ("channels_last", Value::from(call.channels_last)),
        ("sms", Value::from(call.sms)),
        ("arch", Value::from(call.arch)),
    ];
    scope.extend(more.map(|(name, value)| (name.to_owned(), value)));
    scope
}

fn extent(expressions: &[Expression], scope: &Scope) -> Result<[u32; 3], ExpressionError> {
    let mut extent = [1; 3];
    for (size, expression) in extent.iter_mut().zip(expressions) {
        *size = expression.size(scope, MOST)? as u32;
    }
    Ok(extent)
}

/// A value as Python writes it.
fn python(value: &Value) -> String {
    match (bool::try_from(value.clone()), value.as_str()) {
        (Ok(true), _) => "True".to_owned(),
        (Ok(false), _) => "False".to_owned(),
        _ if value.is_none() => "None".to_owned(),
        (_, Some(text)) => format!("{text:?}"),
        _ => value.to_string(),
    }
}
