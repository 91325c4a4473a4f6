//! Telling the answer: the record schema, certificates, plots and reports.
