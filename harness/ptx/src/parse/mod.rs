//! From PTX text to a [`Program`]: the module's directives, variables and functions. Instructions: [`body`], `decode`.

mod body;
mod lexer;
mod variables;

use std::collections::HashMap;

use crate::{
    decode::{Operand, Registry, Type},
    program::{Kernel, Op, Piece, Program, Space, Variable},
};
use lexer::{Token, tokens};

/// PTX text that cannot be taken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct ParseError {
    /// 1-based line of the text; 0 where no line is to blame.
    pub line: u32,
    /// What is wrong, or not known.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A device function: where it starts and where its parameters and results lie in the thread's own memory.
#[derive(Clone, Default)]
struct Function {
    start: Option<u32>,
    parameters: Vec<Variable>,
    results: Vec<Variable>,
}

/// A call whose function may be defined further down.
struct PendingCall {
    at: usize,
    name: String,
    arguments: Vec<u64>,
    results: Vec<u64>,
    caller: Option<String>,
}

/// The variables of a module and of the function at hand, by name.
#[derive(Clone)]
struct Symbol {
    operand: Operand,
    /// The end of a static shared variable, for the kernels that use it.
    shared_end: u64,
    shared_align: u64,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Of the operand or initial value at hand.
    depth: usize,
    program: Program,
    registry: Registry,
    symbols: HashMap<String, Symbol>,
    functions: HashMap<String, Function>,
    calls: Vec<PendingCall>,
    shared_cursor: u64,
    /// Shared memory that device functions use, which counts for every kernel.
    functions_shared: (u64, u64),
}

/// Reads a module.
pub(crate) fn parse(text: &str) -> Result<Program, ParseError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        program: Program { locations: vec![Default::default()], ..Default::default() },
        registry: Registry::default(),
        symbols: HashMap::new(),
        functions: HashMap::new(),
        calls: Vec::new(),
        shared_cursor: crate::execute::space::SHARED_START,
        functions_shared: (0, 1),
    };
    while parser.at < parser.tokens.len() {
        parser.item()?;
    }
    parser.finish()
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at.min(self.tokens.len().saturating_sub(1))).map_or(0, |t| t.line)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.line(), message))
    }

    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |t| t.text)
    }

    fn next(&mut self) -> &'a str {
        let text = self.peek();
        self.at += 1;
        text
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.peek() == text;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if self.take(text) { Ok(()) } else { self.error(format!("expected `{text}`, found `{}`", self.peek())) }
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        match lexer::integer(self.peek()) {
            Some(value) => {
                self.at += 1;
                Ok(value)
            }
            None => self.error(format!("expected a number, found `{}`", self.peek())),
        }
    }

    fn ty(&mut self) -> Result<Type, ParseError> {
        match self.peek().strip_prefix('.').and_then(Type::parse) {
            Some(ty) => {
                self.at += 1;
                Ok(ty)
            }
            None => self.error(format!("unknown type `{}`", self.peek())),
        }
    }

    /// One directive of the module.
    fn item(&mut self) -> Result<(), ParseError> {
        match self.next() {
            ".version" => {
                self.next();
            }
            ".target" => {
                self.next();
                while self.take(",") {
                    self.next();
                }
            }
            ".address_size" => {
                if self.number()? != 64 {
                    return self.error("only 64-bit addresses are known");
                }
            }
            ".file" => {
                let number = self.number()? as u32;
                let name = self.next().to_string();
                self.program.files.insert(number, name);
                while self.take(",") {
                    self.number()?;
                }
            }
            ".section" => {
                self.next();
                self.expect("{")?;
                while !self.take("}") {
                    if self.at >= self.tokens.len() {
                        return self.error("a section without an end");
                    }
                    self.at += 1;
                }
            }
            ".extern" => return self.linked(true),
            ".visible" | ".weak" | ".common" => return self.linked(false),
            ".entry" | ".func" | ".global" | ".const" | ".shared" => {
                self.at -= 1;
                return self.linked(false);
            }
            ".pragma" => {
                self.next();
                self.expect(";")?;
            }
            ";" => {}
            other => {
                self.at -= 1;
                return self.error(format!("unknown directive `{other}`"));
            }
        }
        Ok(())
    }

    fn linked(&mut self, external: bool) -> Result<(), ParseError> {
        match self.next() {
            ".entry" => self.kernel(),
            ".func" => self.function(),
            ".global" => self.module_variable(Space::Global, external),
            ".const" => self.module_variable(Space::Const, external),
            ".shared" => self.module_variable(Space::Shared, external),
            other => {
                self.at -= 1;
                self.error(format!("unknown directive `{other}`"))
            }
        }
    }

    fn kernel(&mut self) -> Result<(), ParseError> {
        let name = self.next().to_string();
        let mut kernel = Kernel { name, start: self.program.code.len() as u32, shared_align: 1, ..Default::default() };
        if self.take("(") {
            while !self.take(")") {
                let (variable, align) = self.parameter()?;
                let offset = kernel.parameter_bytes.next_multiple_of(align);
                kernel.parameter_bytes = offset + variable.bytes;
                kernel.parameters.push(Variable { offset, ..variable });
                self.take(",");
            }
        }
        while !matches!(self.peek(), "{" | ";") {
            let directive = self.next();
            match directive {
                ".maxntid" => kernel.max_threads = Some(self.extent()?),
                ".reqntid" => kernel.required_threads = Some(self.extent()?),
                ".reqnctapercluster" => kernel.required_cluster = Some(self.extent()?),
                ".minnctapersm" | ".maxnreg" | ".maxclusterrank" => {
                    self.number()?;
                }
                ".explicitcluster" | ".blocksareclusters" => {}
                ".pragma" => {
                    self.next();
                    self.expect(";")?;
                }
                other => return self.error(format!("unknown directive `{other}` of a kernel")),
            }
        }
        if self.take(";") {
            return Ok(());
        }
        let used = self.body(Scope::kernel(&kernel))?;
        kernel.registers = used.registers;
        kernel.local_bytes = used.local_bytes;
        (kernel.shared_bytes, kernel.shared_align) = used.shared;
        self.program.kernels.push(kernel);
        Ok(())
    }

    fn extent(&mut self) -> Result<[u32; 3], ParseError> {
        let mut extent = [self.number()? as u32, 1, 1];
        for e in &mut extent[1..] {
            if self.take(",") {
                *e = self.number()? as u32;
            }
        }
        Ok(extent)
    }

    fn function(&mut self) -> Result<(), ParseError> {
        let mut function = Function::default();
        let list = |parser: &mut Self, end: &mut u64| -> Result<Vec<Variable>, ParseError> {
            let mut variables = Vec::new();
            while !parser.take(")") {
                let (variable, align) = parser.parameter()?;
                let offset = end.next_multiple_of(align.max(8));
                *end = offset + variable.bytes;
                variables.push(Variable { offset, ..variable });
                parser.take(",");
            }
            Ok(variables)
        };
        let mut end = self.program.function_bytes.max(crate::execute::space::FUNCTION_LOCAL);
        if self.take("(") {
            function.results = list(self, &mut end)?;
        }
        let name = self.next().to_string();
        if self.take("(") {
            function.parameters = list(self, &mut end)?;
        }
        self.take(".noreturn");
        if self.take(";") {
            // A prototype: the definition follows, or there is none.
            self.functions.entry(name).or_default();
            return Ok(());
        }
        self.program.function_bytes = end;
        function.start = Some(self.program.code.len() as u32);
        let scope = Scope::function(&name, &function, self.program.function_registers, end);
        self.functions.insert(name, function);
        let used = self.body(scope)?;
        self.program.function_registers = used.registers;
        self.program.function_bytes = used.local_bytes;
        self.functions_shared =
            (self.functions_shared.0.max(used.shared.0), self.functions_shared.1.max(used.shared.1));
        Ok(())
    }

    /// Puts calls' targets in place and refuses recursion, because a function's registers exist once.
    fn finish(mut self) -> Result<Program, ParseError> {
        let mut edges: Vec<(String, String, u32)> = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            let line = self.program.code[call.at].line;
            let found = self.functions.get(&call.name);
            let Some((function, start)) = found.and_then(|f| Some((f, f.start?))) else {
                return Err(ParseError::new(line, format!("function {} has no body", call.name)));
            };
            if function.parameters.len() != call.arguments.len() || function.results.len() != call.results.len() {
                return Err(ParseError::new(line, format!("call of {} with other parameters", call.name)));
            }
            let arguments = function.parameters.iter().zip(&call.arguments);
            let results = function.results.iter().zip(&call.results);
            self.program.code[call.at].op = Op::Call {
                target: start,
                arguments: arguments.map(|(v, from)| Piece { from: *from, to: v.offset, bytes: v.bytes }).collect(),
                results: results.map(|(v, to)| Piece { from: v.offset, to: *to, bytes: v.bytes }).collect(),
            };
            if let Some(caller) = call.caller {
                edges.push((caller, call.name, line));
            }
        }
        for (caller, callee, line) in &edges {
            let (mut seen, mut open) = (Vec::new(), vec![callee.clone()]);
            while let Some(name) = open.pop() {
                if name == *caller {
                    return Err(ParseError::new(*line, format!("function {caller} is recursive")));
                }
                if !seen.contains(&name) {
                    open.extend(edges.iter().filter(|(c, ..)| *c == name).map(|(_, n, _)| n.clone()));
                    seen.push(name);
                }
            }
        }
        let (shared_end, shared_align) = self.functions_shared;
        let (global, shared, atomics) = grains(&self.program);
        for kernel in &mut self.program.kernels {
            kernel.shared_bytes = kernel.shared_bytes.max(shared_end);
            kernel.shared_align = kernel.shared_align.max(shared_align);
            (kernel.global_grain, kernel.shared_grain, kernel.global_atomics) = (global, shared, atomics);
        }
        self.program.constants = self.registry.constants;
        Ok(self.program)
    }
}

/// The narrowest accesses to global and to shared memory, and whether global memory is changed atomically.
fn grains(program: &Program) -> (u32, u32, bool) {
    let (mut global, mut shared, mut atomics) = (16, 16, false);
    let mut see = |space: Space, bytes: u32| {
        if matches!(space, Space::Global | Space::Generic) {
            global = global.min(bytes);
        }
        if matches!(space, Space::Shared | Space::Cluster | Space::Generic) {
            shared = shared.min(bytes);
        }
    };
    for inst in &program.code {
        match &inst.op {
            Op::Load { address, bytes, .. } | Op::Store { address, bytes, .. } => see(address.space, *bytes),
            Op::Atomic { address, bytes, .. } => {
                see(address.space, *bytes);
                atomics |= matches!(address.space, Space::Global | Space::Generic);
            }
            Op::CopyAsync { to, from, bytes, source_bytes, .. } => {
                see(to.space, *bytes);
                see(from.space, if source_bytes.is_some() { 1 } else { *bytes });
            }
            Op::Mbarrier { address, .. } => see(address.space, 8),
            Op::Matrices { address, .. } => see(address.space, 16),
            _ => {}
        }
    }
    (global, shared, atomics)
}

/// What a function's body can name, and what it has used.
struct Scope {
    bank: u32,
    /// The device function's name; none for a kernel.
    name: Option<String>,
    registers: usize,
    local_bytes: u64,
    shared: (u64, u64),
    /// Innermost last.
    names: Vec<HashMap<String, Operand>>,
    /// `%r<78>`: prefix, count, first register, type.
    ranges: Vec<Vec<(String, u64, usize, Type)>>,
}
