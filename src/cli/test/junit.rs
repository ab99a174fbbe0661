//! Writes the outcome of tests as `JUnit`'s XML, which systems for continuous integration read. A file is a suite, and a test
//! of it is a case.

use std::fmt::Write;

use super::FileReport;
use crate::cli::xml::escaped;

/// The name of the case that stands for a file whose tests did not run.
const WHOLE_FILE: &str = "the file can be run";

/// Returns the XML of all files.
pub(super) fn xml(files: &[FileReport]) -> String {
    let (mut suites, mut all) = (String::new(), Counts::default());
    for file in files {
        let counts = Counts::of(file);
        all.add(counts);
        suite(&mut suites, file, counts);
    }
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {}>\n{suites}</testsuites>\n", all.attributes())
}

#[derive(Clone, Copy, Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
}

impl Counts {
    fn of(file: &FileReport) -> Self {
        match file.not_run {
            Some(_) => Self { tests: 1, failures: 0, errors: 1 },
            None => Self {
                tests: file.cases.len(),
                failures: file.cases.iter().filter(|case| !case.faults.is_empty()).count(),
                errors: 0,
            },
        }
    }

    fn add(&mut self, other: Self) {
        self.tests += other.tests;
        self.failures += other.failures;
        self.errors += other.errors;
    }

    fn attributes(self) -> String {
        let Self { tests, failures, errors } = self;
        format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"")
    }
}

fn suite(xml: &mut String, file: &FileReport, counts: Counts) {
    let path = escaped(&file.path.display().to_string());
    let _infallible = writeln!(xml, "  <testsuite name=\"{path}\" {}>", counts.attributes());
    if let Some(reason) = &file.not_run {
        case(xml, &path, WHOLE_FILE, "error", std::slice::from_ref(reason));
    } else {
        for (test, number) in file.cases.iter().zip(1..) {
            let name = if test.name.is_empty() { format!("test {number}") } else { test.name.clone() };
            case(xml, &path, &name, "failure", &test.faults);
        }
    }
    xml.push_str("  </testsuite>\n");
}

fn case(xml: &mut String, class: &str, name: &str, element: &str, faults: &[String]) {
    let head = format!("    <testcase classname=\"{class}\" name=\"{}\"", escaped(name));
    let Some(first) = faults.first() else {
        let _infallible = writeln!(xml, "{head}/>");
        return;
    };
    let lines: Vec<String> = faults.iter().flat_map(|fault| fault.lines()).map(escaped).collect();
    let first = escaped(first);
    let _infallible = writeln!(xml, "{head}>");
    let _infallible = writeln!(xml, "      <{element} message=\"{first}\">{}</{element}>", lines.join("\n"));
    xml.push_str("    </testcase>\n");
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::*;

    #[test]
    fn a_case_is_a_test() {
        let case = |name: &str, faults: &[&str]| Case {
            name: name.to_owned(),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        };
        let file = |path: &str, not_run: Option<&str>, cases: Vec<Case>| FileReport {
            path: path.into(),
            not_run: not_run.map(str::to_owned),
            failures: Vec::new(),
            cases,
        };
        let files = [
            file("a<b>.yaml", None, vec![case("holds", &[]), case("", &["got \"no\"", "and\nmore"])]),
            file("broken.yaml", Some("no model"), Vec::new()),
        ];
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites tests=\"3\" failures=\"1\" errors=\"1\">
  <testsuite name=\"a&lt;b&gt;.yaml\" tests=\"2\" failures=\"1\" errors=\"0\">
    <testcase classname=\"a&lt;b&gt;.yaml\" name=\"holds\"/>
    <testcase classname=\"a&lt;b&gt;.yaml\" name=\"test 2\">
      <failure message=\"got &quot;no&quot;\">got &quot;no&quot;
and
more</failure>
    </testcase>
  </testsuite>
  <testsuite name=\"broken.yaml\" tests=\"1\" failures=\"0\" errors=\"1\">
    <testcase classname=\"broken.yaml\" name=\"the file can be run\">
      <error message=\"no model\">no model</error>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(xml(&files), expected);
    }
}
