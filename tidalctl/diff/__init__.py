"""What two traces, bundles or benches differ in, and what it costs a start."""
