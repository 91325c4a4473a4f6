//! JUnit XML, which every CI system shows: a suite per operator and direction, a test per kernel, dtype and family.

use std::collections::BTreeMap;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::Error;
use crate::record::{Counts, Finding};
use crate::summary::{KernelSummary, Summary, Verdict, counted};

/// The report as XML.
///
/// # Errors
/// [`Error::Junit`] if it cannot be written as XML.
pub fn junit(summary: &Summary) -> Result<String, Error> {
    let mut suites = BTreeMap::<(&str, bool), TestSuite>::new();
    for kernel in &summary.kernels {
        let (operator, direction) = (&kernel.kernel.operator, &kernel.kernel.direction);
        let place = (operator.as_str(), direction != "forward");
        let suite = suites.entry(place).or_insert_with(|| TestSuite::new(format!("{operator} {direction}")));
        suite.add_test_cases(tests(kernel));
    }
    let mut report = Report::new("isonorm");
    report.add_test_suites(suites.into_values());
    Ok(report.to_string()?)
}

fn tests(kernel: &KernelSummary) -> Vec<TestCase> {
    let test = |name: String, status| {
        let mut test = TestCase::new(name, status);
        test.set_classname(format!("{}.{}", kernel.kernel.operator, kernel.kernel.direction));
        test
    };
    let mut groups = kernel.by(|tally| (tally.dtype.clone(), tally.family.clone()));
    for finding in &kernel.findings {
        groups.entry((finding.dtype.clone(), finding.family.clone())).or_default();
    }
    let mut tests: Vec<_> = groups
        .iter()
        .map(|((dtype, family), counts)| {
            let about = |f: &&Finding| (&f.dtype, &f.family) == (dtype, family);
            let findings: Vec<_> = kernel.findings.iter().filter(about).collect();
            let mut test = test(format!("{} {dtype} {family}", kernel.kernel.name), status(counts, &findings));
            if let Some(worst) = &counts.errors.worst_ratio_to_bound {
                let cases = counted(counts.cases, "case");
                test.set_system_out(format!("{cases}, worst error {} of the bound in {}", worst.value, worst.case));
            }
            test
        })
        .collect();
    // What is wrong with the kernel as a whole must not be lost between green tests.
    if kernel.verdict != Verdict::Certified {
        let kind = if kernel.verdict == Verdict::Failed { NonSuccessKind::Failure } else { NonSuccessKind::Error };
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(kernel.verdict.to_string()).set_message(kernel.reasons.join("; "));
        tests.push(test(format!("{} verdict", kernel.kernel.name), status));
    }
    tests
}

fn status(counts: &Counts, findings: &[&Finding]) -> TestCaseStatus {
    if let Some(first) = findings.first() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        let text: Vec<_> = findings.iter().map(|finding| description(finding)).collect();
        status.set_type(&first.property).set_message(&first.message).set_description(text.join("\n\n"));
        status
    } else if counts.failed > 0 {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(format!("{} of {} failed", counts.failed, counted(counts.cases, "case")));
        status
    } else if counts.cases == 0 {
        let mut status = TestCaseStatus::skipped();
        let reasons: Vec<_> = counts.declined.iter().map(|(reason, n)| format!("{reason} ({n})")).collect();
        status.set_message(format!("declined: {}", reasons.join("; ")));
        status
    } else {
        TestCaseStatus::success()
    }
}

/// A finding as plain text.
fn description(finding: &Finding) -> String {
    let mut lines = vec![
        format!("{}: {}", finding.property, finding.message),
        format!("formula:  {}", finding.formula),
        format!("case:     {}", finding.case),
    ];
    if let Some(wrong) = &finding.wrong {
        lines.push(format!("element:  {} {:?}", wrong.output, wrong.index));
        let values =
            [("got:", Some(&wrong.got)), ("true:", Some(&wrong.truth)), ("libtorch:", wrong.libtorch.as_ref())];
        lines.extend(values.iter().filter_map(|(what, v)| v.map(|v| format!("{what:9} {} ({})", v.decimal, v.bits))));
    }
    if let Some(ratio) = finding.ratio_to_bound {
        lines.push(format!("error:    {ratio} times the bound"));
    }
    lines.push(format!("replay:   {}", finding.replay));
    lines.join("\n")
}
