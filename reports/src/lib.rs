//! Run records, columns, tables and plots.
