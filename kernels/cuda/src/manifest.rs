//! The manifest: which kernels a source has, which operators they compute, how they are launched. A TOML file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use isonorm_kernels::abi::{Dtype, DtypeSet, KernelInfo, Layouts, Reduction, Rsqrt};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use toml::Spanned;

use crate::expression::Expression;
use crate::launch::{Argument, ScalarType};

/// What a manifest says.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The source file, beside the manifest.
    pub source: String,
    /// Further files, by the names that the source includes them by.
    pub include: Vec<String>,
    /// Options for the compiler.
    pub options: Vec<String>,
    /// The architecture that is compiled for, such as `sm_90`; none for the usual one.
    pub arch: Option<String>,
    /// The kernels.
    pub kernels: Vec<Kernel>,
}

/// A kernel: one half of an operator, as one or several launches.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What it says of itself.
    pub info: KernelInfo,
    /// The only sizes that some axes of the operator can have, by name.
    pub sizes: Vec<(String, Vec<usize>)>,
    /// Conditions of a call; where one is false the kernel declines.
    pub requires: Vec<Requirement>,
    /// Named values, in the order in which they are computed.
    pub values: Vec<(String, Expression)>,
    /// Named buffers that one launch fills for another.
    pub scratch: Vec<Scratch>,
    /// The launches, in order.
    pub launches: Vec<Launch>,
}

/// A condition of a call.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// What has to be true.
    pub that: Expression,
    /// Why.
    pub because: String,
}

/// A buffer of a call, not initialised.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// How many elements it has.
    pub elements: Expression,
}

/// A launch, before its sizes are known.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The launch is left out where this is false.
    pub when: Option<Expression>,
    /// A template: a C++ name expression, the PTX name, or the function's name.
    pub entry: Expression,
    /// In order.
    pub arguments: Vec<Argument>,
    /// Blocks: one to three numbers.
    pub grid: Vec<Expression>,
    /// Threads of a block: one to three numbers; empty where the compiler decides.
    pub block: Vec<Expression>,
    /// Blocks of a cluster; empty for 1.
    pub cluster: Vec<Expression>,
    /// Bytes of dynamic shared memory; none for 0, or where the compiler decides.
    pub shared: Option<Expression>,
    /// Triton: parameters that are constants, by name.
    pub constants: Vec<(String, Expression)>,
    /// Triton: warps of a program.
    pub num_warps: Option<Expression>,
    /// Triton: stages of loops.
    pub num_stages: Option<Expression>,
}

/// Why a manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is no TOML, or has keys that it cannot have.
    #[error("{0}")]
    Toml(String),
    /// A value that it cannot have.
    #[error("line {line}: {what}")]
    Value {
        /// 1-based.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// With the line, the key, and what it can be.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        let file: File = toml::from_str(text).map_err(|error| ManifestError::Toml(error.to_string()))?;
        let lines = Lines(text);
        let shared = lines.table("let", file.values)?;
        let mut kernels: Vec<Kernel> = Vec::new();
        for kernel in file.kernel {
            let line = lines.of(&kernel.name);
            let kernel = lines.kernel(kernel, &shared)?;
            if kernels.iter().any(|other| other.info.name == kernel.info.name) {
                return Err(lines.at(line, format!("there are two kernels `{}`", kernel.info.name)));
            }
            kernels.push(kernel);
        }
        Ok(Manifest { source: file.source, include: file.include, options: file.options, arch: file.arch, kernels })
    }
}

/// The file as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
    arch: Option<String>,
    #[serde(default, rename = "let")]
    values: InOrder<Written>,
    kernel: Vec<KernelFile>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelFile {
    name: Spanned<String>,
    op: String,
    direction: Spanned<String>,
    dtypes: Vec<Spanned<String>>,
    #[serde(default)]
    layouts: Vec<Spanned<String>>,
    precision: Option<Spanned<String>>,
    reduction: Option<Spanned<String>>,
    rsqrt: Option<Spanned<String>>,
    #[serde(default)]
    sizes: InOrder<Spanned<Vec<usize>>>,
    #[serde(default)]
    requires: Vec<RequirementFile>,
    #[serde(default, rename = "let")]
    values: InOrder<Written>,
    #[serde(default)]
    scratch: InOrder<ScratchFile>,
    launch: Vec<LaunchFile>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RequirementFile {
    that: Written,
    because: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ScratchFile {
    dtype: Spanned<String>,
    elements: Written,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchFile {
    when: Option<Written>,
    entry: Written,
    #[serde(default)]
    arguments: Vec<Spanned<String>>,
    grid: Spanned<Vec<Written>>,
    #[serde(default)]
    block: Option<Spanned<Vec<Written>>>,
    #[serde(default)]
    cluster: Option<Spanned<Vec<Written>>>,
    shared: Option<Written>,
    #[serde(default)]
    constants: InOrder<Written>,
    num_warps: Option<Written>,
    num_stages: Option<Written>,
}

/// An expression: text, or a number or a boolean as it is.
type Written = Spanned<Text>;

struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an expression in quotes, or a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(format!("{number:?}")))
            }

            fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Text, E> {
                Ok(Text(truth.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A table in the order of the file.
struct InOrder<T>(Vec<(String, T)>);

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        InOrder(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
            type Value = InOrder<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !is_name(&name) {
                        return Err(A::Error::custom(format!("`{name}` is no name: letters, digits and `_` make one")));
                    }
                    entries.push((name, value));
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Table(PhantomData))
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// The text of the manifest, to say in which line something stands.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of<T>(&self, spanned: &Spanned<T>) -> usize {
        self.0.as_bytes()[..spanned.span().start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn at(&self, line: usize, what: String) -> ManifestError {
        ManifestError::Value { line, what }
    }

    /// Reads a word of the descriptor.
    fn word<T: FromStr<Err: fmt::Display>>(&self, key: &str, word: &Spanned<String>) -> Result<T, ManifestError> {
        let wrong = |error: T::Err| self.at(self.of(word), format!("`{key}`: {error}"));
        word.get_ref().parse().map_err(wrong)
    }

    fn words<T: FromStr<Err: fmt::Display>>(
        &self,
        key: &str,
        word: Option<&Spanned<String>>,
    ) -> Result<Option<T>, ManifestError> {
        word.map(|word| self.word(key, word)).transpose()
    }

    /// What an expression is, before anything is known of its kind.
    fn written(&self, key: &str, written: Written) -> Expression {
        let line = self.of(&written);
        Expression { text: written.into_inner().0, key: key.to_owned(), line }
    }

    fn expression(&self, key: &str, written: Written) -> Result<Expression, ManifestError> {
        let expression = self.written(key, written);
        expression.check().map_err(|error| self.at(expression.line, error.to_string()))?;
        Ok(expression)
    }

    fn optional(&self, key: &str, written: Option<Written>) -> Result<Option<Expression>, ManifestError> {
        written.map(|written| self.expression(key, written)).transpose()
    }

    /// One to three sizes; none if there is no such key.
    fn sizes(&self, key: &str, list: Option<Spanned<Vec<Written>>>) -> Result<Vec<Expression>, ManifestError> {
        let Some(list) = list else { return Ok(Vec::new()) };
        let count = list.get_ref().len();
        if !(1..=3).contains(&count) {
            return Err(self.at(self.of(&list), format!("`{key}` has {count} sizes; it can have one to three")));
        }
        list.into_inner().into_iter().map(|written| self.expression(key, written)).collect()
    }

    fn table(&self, key: &str, table: InOrder<Written>) -> Result<Vec<(String, Expression)>, ManifestError> {
        let entry = |(name, written): (String, Written)| {
            let expression = self.expression(&format!("{key}.{name}"), written)?;
            Ok((name, expression))
        };
        table.0.into_iter().map(entry).collect()
    }

    /// The values of a kernel and those of the file that it has none of its own for, each after those that it names.
    fn values(
        &self,
        mut own: Vec<(String, Expression)>,
        shared: &[(String, Expression)],
    ) -> Result<Vec<(String, Expression)>, ManifestError> {
        let missing = |(name, _): &&(String, Expression)| !own.iter().any(|(other, _)| other == name);
        let more: Vec<_> = shared.iter().filter(missing).cloned().collect();
        own.extend(more);
        let mut waiting: Vec<_> = own.into_iter().map(|(name, value)| (value.names(), name, value)).collect();
        let mut values = Vec::new();
        while let Some((_, _, first)) = waiting.first() {
            let is_waiting = |name: &String| waiting.iter().any(|(_, other, _)| other == name);
            let Some(next) = waiting.iter().position(|(names, ..)| !names.iter().any(is_waiting)) else {
                let names: Vec<String> = waiting.iter().map(|(_, name, _)| format!("`let.{name}`")).collect();
                return Err(self.at(first.line, format!("{} need each other", names.join(", "))));
            };
            let (_, name, value) = waiting.remove(next);
            values.push((name, value));
        }
        Ok(values)
    }

    fn kernel(&self, file: KernelFile, shared: &[(String, Expression)]) -> Result<Kernel, ManifestError> {
        let line = self.of(&file.name);
        let name = file.name.into_inner();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            let what = format!("`name` is `{name}`; it can have letters, digits, `_`, `-` and `.`");
            return Err(self.at(line, what));
        }
        if file.dtypes.is_empty() || file.launch.is_empty() {
            let missing = if file.launch.is_empty() { "launches" } else { "element types" };
            return Err(self.at(line, format!("the kernel `{name}` has no {missing}")));
        }
        let dtypes: Result<Vec<DtypeSet>, _> = file.dtypes.iter().map(|word| self.word("dtypes", word)).collect();
        let mut layouts = Layouts::default();
        for word in &file.layouts {
            let more: Layouts = self.word("layouts", word)?;
            if more.strided {
                let what = "`layouts`: a manifest has no names for strides; it can be contiguous, offset, channels_last, in_place";
                return Err(self.at(self.of(word), what.to_owned()));
            }
            layouts = Layouts {
                offset: layouts.offset || more.offset,
                strided: false,
                channels_last: layouts.channels_last || more.channels_last,
                in_place: layouts.in_place || more.in_place,
            };
        }
        let precision: Option<Dtype> = self.words("precision", file.precision.as_ref())?;
        if let Some(word) = file.precision.as_ref().filter(|_| !matches!(precision, Some(Dtype::F32 | Dtype::F64))) {
            return Err(self.at(self.of(word), format!("`precision` is `{}`; it can be f32 or f64", word.get_ref())));
        }
        let info = KernelInfo {
            name,
            operator: file.op,
            direction: self.word("direction", &file.direction)?,
            dtypes: dtypes?,
            layouts,
            precision,
            reduction: self.words("reduction", file.reduction.as_ref())?.unwrap_or(Reduction::Any),
            rsqrt: self.words("rsqrt", file.rsqrt.as_ref())?.unwrap_or(Rsqrt::Exact),
            thread_safe: true,
        };
        let sizes = |(name, list): (String, Spanned<Vec<usize>>)| {
            if list.get_ref().is_empty() {
                return Err(
                    self.at(self.of(&list), format!("`sizes.{name}` is empty; give the sizes that the kernel takes"))
                );
            }
            Ok((name, list.into_inner()))
        };
        let requirement = |file: RequirementFile| {
            Ok(Requirement { that: self.expression("requires", file.that)?, because: file.because })
        };
        let scratch = |(name, file): (String, ScratchFile)| {
            let dtype = self.word(&format!("scratch.{name}.dtype"), &file.dtype)?;
            let elements = self.expression(&format!("scratch.{name}.elements"), file.elements)?;
            Ok(Scratch { name, dtype, elements })
        };
        let scratch: Vec<Scratch> = file.scratch.0.into_iter().map(scratch).collect::<Result<_, _>>()?;
        let launch = |file: LaunchFile| self.launch(file, &scratch);
        Ok(Kernel {
            sizes: file.sizes.0.into_iter().map(sizes).collect::<Result<_, _>>()?,
            requires: file.requires.into_iter().map(requirement).collect::<Result<_, _>>()?,
            values: self.values(self.table("let", file.values)?, shared)?,
            launches: file.launch.into_iter().map(launch).collect::<Result<_, _>>()?,
            scratch,
            info,
        })
    }

    fn launch(&self, file: LaunchFile, scratch: &[Scratch]) -> Result<Launch, ManifestError> {
        let entry = self.written("entry", file.entry);
        entry.check_template().map_err(|error| self.at(entry.line, error.to_string()))?;
        let argument = |text: Spanned<String>| {
            let line = self.of(&text);
            self.argument(line, text.get_ref(), scratch)
        };
        Ok(Launch {
            when: self.optional("when", file.when)?,
            arguments: file.arguments.into_iter().map(argument).collect::<Result<_, _>>()?,
            grid: self.sizes("grid", Some(file.grid))?,
            block: self.sizes("block", file.block)?,
            cluster: self.sizes("cluster", file.cluster)?,
            shared: self.optional("shared", file.shared)?,
            constants: self.table("constants", file.constants)?,
            num_warps: self.optional("num_warps", file.num_warps)?,
            num_stages: self.optional("num_stages", file.num_stages)?,
            entry,
        })
    }

    fn argument(&self, line: usize, text: &str, scratch: &[Scratch]) -> Result<Argument, ManifestError> {
        let key = "arguments".to_owned();
        if let Some((expression, kind)) = text.rsplit_once(':') {
            let kind: ScalarType =
                kind.trim().parse().map_err(|error| self.at(line, format!("`arguments` has `{text}`: {error}")))?;
            let expression = Expression { text: expression.trim().to_owned(), key, line };
            expression.check().map_err(|error| self.at(line, error.to_string()))?;
            return Ok(Argument::Scalar(expression, kind));
        }
        let text = text.trim();
        if text == "null" {
            return Ok(Argument::Null);
        }
        if let Some(name) = text.strip_prefix("scratch.") {
            if scratch.iter().any(|scratch| scratch.name == name) {
                return Ok(Argument::Scratch(name.to_owned()));
            }
            let known: Vec<&str> = scratch.iter().map(|scratch| scratch.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(self.at(line, format!("`arguments` has `{text}`; the kernel's scratch buffers are: {known}")));
        }
        if is_name(text) {
            return Ok(Argument::Tensor(text.to_owned()));
        }
        let what = format!(
            "`arguments` has `{text}`; it can have a tensor's name, scratch.NAME, null, or EXPRESSION: TYPE with {}",
            ScalarType::NAMES
        );
        Err(self.at(line, what))
    }
}
