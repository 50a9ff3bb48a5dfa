"""Many runs: what a study is, which runs it lacks, who runs them, and searches."""
