//! Function bodies: scopes, labels, line information, guards, and the operands of instructions.

use super::{ParseError, Parser, PendingCall, Scope, lexer};
use crate::{
    decode::{Operand, Operands, Type, decode},
    program::{Inst, Location, Op, Space},
};
use std::collections::HashMap;

/// Branches whose label may stand further down, and labels.
#[derive(Default)]
struct Labels {
    places: HashMap<String, u32>,
    branches: Vec<(usize, String)>,
}

impl Parser<'_> {
    /// A body from its first brace to its last, appended to the program's code.
    pub(super) fn body(&mut self, mut scope: Scope) -> Result<Scope, ParseError> {
        self.expect("{")?;
        let mut labels = Labels::default();
        let mut location = 0;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                "" => return self.error("a function without an end"),
                "{" => {
                    self.at += 1;
                    depth += 1;
                    scope.names.push(HashMap::new());
                    scope.ranges.push(Vec::new());
                }
                "}" => {
                    self.at += 1;
                    depth -= 1;
                    if depth > 0 {
                        scope.names.pop();
                        scope.ranges.pop();
                    }
                }
                ";" => self.at += 1,
                ".reg" => {
                    self.at += 1;
                    self.registers(&mut scope)?;
                }
                space @ (".local" | ".param" | ".shared") => {
                    self.at += 1;
                    let space = if space == ".shared" { Space::Shared } else { Space::Local };
                    self.local_variable(space, &mut scope)?;
                }
                ".loc" => {
                    self.at += 1;
                    location = self.location()?;
                }
                ".pragma" => {
                    self.at += 2;
                    self.expect(";")?;
                }
                directive if directive.starts_with('.') => {
                    return self.error(format!("unknown directive `{directive}`"));
                }
                word => {
                    if self.tokens.get(self.at + 1).is_some_and(|t| t.text == ":") {
                        self.at += 2;
                        if labels.places.insert(word.into(), self.program.code.len() as u32).is_some() {
                            return self.error(format!("label {word} stands twice"));
                        }
                    } else {
                        self.instruction(&mut scope, &mut labels, location)?;
                    }
                }
            }
        }
        // A body that ends without an instruction that leaves it.
        let line = self.tokens[self.at - 1].line;
        let op = if scope.name.is_some() { Op::Return } else { Op::Exit };
        self.program.code.push(Inst { guard: None, op, line, location });
        for (at, label) in labels.branches {
            let inst = &mut self.program.code[at];
            let Some(place) = labels.places.get(&label) else {
                return Err(ParseError::new(inst.line, format!("unknown label {label}")));
            };
            inst.op = Op::Branch(*place);
        }
        Ok(scope)
    }

    /// `.loc file line column [, function_name name [+ n], inlined_at file line column]`
    fn location(&mut self) -> Result<u32, ParseError> {
        let (file, line) = (self.number()? as u32, self.number()? as u32);
        self.number()?;
        let mut inlined = None;
        while self.take(",") {
            match self.next() {
                "function_name" => {
                    self.next();
                    if self.take("+") {
                        self.number()?;
                    }
                }
                "inlined_at" => {
                    inlined = Some((self.number()? as u32, self.number()? as u32));
                    self.number()?;
                }
                other => return self.error(format!("unknown part `{other}` of .loc")),
            }
        }
        let location = Location { file, line, inlined };
        if self.program.locations.last() != Some(&location) {
            self.program.locations.push(location);
        }
        Ok(self.program.locations.len() as u32 - 1)
    }

    fn instruction(&mut self, scope: &mut Scope, labels: &mut Labels, location: u32) -> Result<(), ParseError> {
        let line = self.line();
        let guard = if self.take("@") {
            let negated = self.take("!");
            match scope.find(self.next()) {
                Some(Operand::Register { slot, ty }) if ty == Type::PREDICATE => Some((slot, negated)),
                _ => return Err(ParseError::new(line, "the guard is no predicate")),
            }
        } else {
            None
        };
        let opcode = self.next();
        let mut list = std::collections::VecDeque::new();
        while !self.take(";") {
            list.push_back(self.operand(scope)?);
            if !self.take(",") && self.peek() != ";" {
                return self.error(format!("expected `,` or `;`, found `{}`", self.peek()));
            }
        }
        let refused = |message: String| ParseError::new(line, format!("{opcode}: {message}"));
        let at = self.program.code.len();
        let op = if opcode == "call" || opcode == "call.uni" {
            self.calls.push(call(at, list, scope.name.clone()).map_err(refused)?);
            Op::Nothing
        } else {
            if let ("bra" | "bra.uni", Some(Operand::Name(label))) = (opcode, list.front()) {
                labels.branches.push((at, label.clone()));
            }
            let mut operands = Operands { list, registry: &mut self.registry };
            match (decode(opcode, &mut operands).map_err(refused)?, &scope.name) {
                // A kernel's `ret` ends the thread.
                (Op::Return, None) => Op::Exit,
                (op, _) => op,
            }
        };
        self.program.code.push(Inst { guard, op, line, location });
        Ok(())
    }

    fn operand(&mut self, scope: &mut Scope) -> Result<Operand, ParseError> {
        self.depth += 1;
        let operand = if self.depth > 8 { self.error("an operand of too many parts") } else { self.any_operand(scope) };
        self.depth -= 1;
        operand
    }

    fn any_operand(&mut self, scope: &mut Scope) -> Result<Operand, ParseError> {
        let operand = match self.next() {
            "{" => Operand::Vector(self.list("}", scope)?),
            "(" => Operand::List(self.list(")", scope)?),
            "[" => {
                let base = self.operand(scope)?;
                let offset = if self.take("+") {
                    let negative = self.take("-");
                    let n = self.number()?;
                    if negative { n.wrapping_neg() } else { n }
                } else if self.take("-") {
                    self.number()?.wrapping_neg()
                } else {
                    0
                };
                self.expect("]")?;
                return Ok(Operand::Memory(Box::new(base), offset));
            }
            "!" => match self.operand(scope)? {
                Operand::Register { slot, ty } if ty == Type::PREDICATE => Operand::Not(slot),
                _ => return self.error("`!` before what is no predicate"),
            },
            "-" => match self.operand(scope)? {
                Operand::Integer(value) => Operand::Integer(value.wrapping_neg()),
                Operand::Float(value) => Operand::Float(-value),
                _ => return self.error("`-` before what is no number"),
            },
            "_" => Operand::Sink,
            "WARP_SZ" => Operand::Integer(crate::program::WARP as u64),
            word if word.starts_with(|c: char| c.is_ascii_digit()) => {
                match (lexer::float(word), lexer::integer(word)) {
                    (Some(value), _) => Operand::Float(value),
                    (None, Some(value)) => Operand::Integer(value),
                    _ => return self.error(format!("`{word}` is no number")),
                }
            }
            word => self.name(word, scope)?,
        };
        if self.take("|") {
            return Ok(Operand::Pair(Box::new(operand), Box::new(self.operand(scope)?)));
        }
        Ok(operand)
    }

    fn list(&mut self, end: &str, scope: &mut Scope) -> Result<Vec<Operand>, ParseError> {
        let mut list = Vec::new();
        while !self.take(end) {
            list.push(self.operand(scope)?);
            if !self.take(",") && self.peek() != end {
                return self.error(format!("expected `,` or `{end}`, found `{}`", self.peek()));
            }
        }
        Ok(list)
    }

    fn name(&mut self, word: &str, scope: &mut Scope) -> Result<Operand, ParseError> {
        if let Some(operand) = scope.find(word) {
            return Ok(operand);
        }
        if let Some(symbol) = self.symbols.get(word) {
            scope.shared = (scope.shared.0.max(symbol.shared_end), scope.shared.1.max(symbol.shared_align));
            let operand = symbol.operand.clone();
            // In an address, an offset from dynamic shared memory stays for the address to add.
            return Ok(match operand {
                Operand::Symbol { space, offset } if self.take("+") => {
                    Operand::Symbol { space, offset: offset + self.number()? }
                }
                operand => operand,
            });
        }
        if word.starts_with('%') {
            self.at -= 1;
            return self.error(format!("unknown register {word}"));
        }
        Ok(Operand::Name(word.into()))
    }
}

/// `call (result), function, (arguments)`; the function may be defined further down.
fn call(at: usize, list: std::collections::VecDeque<Operand>, caller: Option<String>) -> Result<PendingCall, String> {
    let mut call = PendingCall { at, name: String::new(), arguments: Vec::new(), results: Vec::new(), caller };
    for operand in list {
        match operand {
            Operand::List(list) => {
                let places = list.into_iter().map(|o| match o {
                    Operand::Symbol { space: Space::Local, offset } => Ok(offset),
                    other => Err(format!("{other:?} is no parameter of a call that is known")),
                });
                let places = places.collect::<Result<Vec<_>, _>>()?;
                if call.name.is_empty() { call.results = places } else { call.arguments = places }
            }
            Operand::Name(name) if call.name.is_empty() => call.name = name,
            other => return Err(format!("a call through {other:?} is not known")),
        }
    }
    Ok(call)
}
