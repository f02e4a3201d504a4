"""What Argo's objects are: each fact once, with its version and source. Pure, imports nothing of ours."""
