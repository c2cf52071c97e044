"""Fleet: machines with their facts and tags, commands run on them, supervision."""
