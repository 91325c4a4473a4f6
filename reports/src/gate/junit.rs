//! A gate as JUnit XML: a suite for each kind, a test for each thing that is worse or undecided, and one for the rest.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::text::compared;
use super::{Consequence, Gate};
use crate::Error;

/// The answer as XML.
///
/// # Errors
/// [`Error::Junit`] if it cannot be written as XML.
pub fn junit(gate: &Gate) -> Result<String, Error> {
    let mut report = Report::new("isonorm gate");
    for kind in gate.kinds() {
        let mut suite = TestSuite::new(kind.to_string());
        let test = |name: &str, status| {
            let mut test = TestCase::new(name, status);
            test.set_classname(format!("gate.{kind}"));
            test
        };
        let mut rest = test("everything else", TestCaseStatus::success());
        rest.set_system_out(compared(gate, kind));
        suite.add_test_case(rest);
        for regression in gate.regressions.iter().filter(|regression| regression.kind == kind) {
            let mut status = match &regression.consequence {
                Consequence::Fails => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Consequence::Reported | Consequence::Waived(_) => TestCaseStatus::skipped(),
            };
            status.set_message(&regression.evidence);
            suite.add_test_case(test(&regression.name, status));
        }
        for undecided in gate.undecided.iter().filter(|undecided| undecided.kind == kind) {
            let mut status = TestCaseStatus::skipped();
            status.set_message(format!("undecided: {}", undecided.reason));
            suite.add_test_case(test(&undecided.name, status));
        }
        report.add_test_suite(suite);
    }
    Ok(report.to_string()?)
}
