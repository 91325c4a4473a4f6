//! The expressions of a manifest: minijinja's, over the numbers and names of one call.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

/// What expressions can use: names and their values.
pub type Scope = BTreeMap<String, Value>;

/// An expression or a template, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// As it was written.
    pub text: String,
    /// The key that it is the value of, such as `let.warps`.
    pub key: String,
    /// 1-based line of the manifest; 0 if that is not known.
    pub line: usize,
}

/// An expression that cannot be read, or has no value in a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is `{text}`: {message}")]
pub struct ExpressionError {
    key: String,
    text: String,
    message: String,
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Names of C++ are no HTML, and its booleans are lower-case.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, state, value| match bool::try_from(value.clone()) {
        Ok(truth) => out.write_str(if truth { "true" } else { "false" }).map_err(minijinja::Error::from),
        Err(_) => minijinja::escape_formatter(out, state, value),
    });
    environment.add_function("cdiv", |a: i64, b: i64| match b {
        1.. => Ok(a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)),
        _ => Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("cdiv({a}, {b}) divides by {b}"))),
    });
    environment.add_function("next_power_of_two", |n: u64| {
        let what = || format!("there is no power of two from {n} on");
        n.checked_next_power_of_two().ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, what()))
    });
    environment.add_function("min", |a: f64, b: f64| number(a.min(b)));
    environment.add_function("max", |a: f64, b: f64| number(a.max(b)));
    environment
});

/// A whole number as an integer, so that it prints and divides as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}

impl Expression {
    fn error(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError { key: self.key.clone(), text: self.text.clone(), message: message.into() }
    }

    /// What an error of minijinja says, with the values that the expression names.
    fn told(
        &self,
        error: &minijinja::Error,
        scope: &Scope,
        names: impl IntoIterator<Item = String>,
    ) -> ExpressionError {
        let mut names: Vec<String> = names.into_iter().filter(|name| !is_function(name)).collect();
        names.sort();
        if let Some(unknown) = names.iter().find(|name| !scope.contains_key(*name)) {
            let known: Vec<&str> = scope.keys().map(String::as_str).collect();
            return self.error(format!("there is no `{unknown}` here; there is {}", known.join(", ")));
        }
        let what =
            error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
        self.error(format!("{what}{}", with_values(scope, &names)))
    }

    /// Whether it can be read as an expression.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn check(&self) -> Result<(), ExpressionError> {
        ENVIRONMENT.compile_expression(&self.text).map(|_| ()).map_err(|error| self.told(&error, &Scope::new(), []))
    }

    /// Whether it can be read as a template.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn check_template(&self) -> Result<(), ExpressionError> {
        ENVIRONMENT.template_from_str(&self.text).map(|_| ()).map_err(|error| self.told(&error, &Scope::new(), []))
    }

    /// The names in it, those of functions left out; none if it cannot be read.
    pub fn names(&self) -> Vec<String> {
        let names = ENVIRONMENT.compile_expression(&self.text).map(|expression| expression.undeclared_variables(false));
        names.unwrap_or_default().into_iter().filter(|name| !is_function(name)).collect()
    }

    /// Its value.
    ///
    /// # Errors
    /// If it names what is not there, or cannot be computed.
    pub fn value(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        let expression = ENVIRONMENT.compile_expression(&self.text).map_err(|error| self.told(&error, scope, []))?;
        let names = || expression.undeclared_variables(false);
        match expression.eval(context(scope)) {
            // An undefined name as a whole is no error to minijinja.
            Ok(value) if value.is_undefined() => {
                let error = minijinja::Error::from(ErrorKind::UndefinedError);
                Err(self.told(&error, scope, names()))
            }
            Ok(value) => Ok(value),
            Err(error) => Err(self.told(&error, scope, names())),
        }
    }

    /// The text that the template makes.
    ///
    /// # Errors
    /// If it names what is not there, or cannot be computed.
    pub fn render(&self, scope: &Scope) -> Result<String, ExpressionError> {
        let template = ENVIRONMENT.template_from_str(&self.text).map_err(|error| self.told(&error, scope, []))?;
        template.render(context(scope)).map_err(|error| self.told(&error, scope, template.undeclared_variables(false)))
    }

    /// Whether it is true: a boolean.
    ///
    /// # Errors
    /// As [`Expression::value`], and if it is no boolean.
    pub fn truth(&self, scope: &Scope) -> Result<bool, ExpressionError> {
        let value = self.value(scope)?;
        bool::try_from(value.clone()).map_err(|_| self.unlike("true or false", &value, scope))
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// As [`Expression::value`], and if it is anything else.
    pub fn size(&self, scope: &Scope, most: u64) -> Result<u64, ExpressionError> {
        let value = self.value(scope)?;
        whole(&value)
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| *number <= most)
            .ok_or_else(|| self.unlike(&format!("a whole number from 0 to {most}"), &value, scope))
    }

    /// A value that is not what was wanted.
    pub(crate) fn unlike(&self, wanted: &str, value: &Value, scope: &Scope) -> ExpressionError {
        let names =
            ENVIRONMENT.compile_expression(&self.text).map(|e| e.undeclared_variables(false)).unwrap_or_default();
        let mut names: Vec<String> = names.into_iter().filter(|name| !is_function(name)).collect();
        names.sort();
        self.error(format!("that is {value:?}, and {wanted} is needed{}", with_values(scope, &names)))
    }
}

fn context(scope: &Scope) -> Value {
    Value::from_pairs(scope.iter().map(|(name, value)| (name.clone(), value.clone())))
}

fn is_function(name: &str) -> bool {
    ENVIRONMENT.globals().any(|(global, _)| global == name)
}

fn with_values(scope: &Scope, names: &[String]) -> String {
    let said: Vec<String> = names.iter().filter_map(|name| Some(format!("{name} = {:?}", scope.get(name)?))).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

/// The whole number that a value is, if it is one.
pub(crate) fn whole(value: &Value) -> Option<i128> {
    if let Ok(truth) = bool::try_from(value.clone()) {
        return Some(truth.into());
    }
    let fits = |real: &f64| real.fract() == 0.0 && real.abs() < 2f64.powi(63);
    i128::try_from(value.clone())
        .ok()
        .or_else(|| f64::try_from(value.clone()).ok().filter(fits).map(|real| real as i128))
}
