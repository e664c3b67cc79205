"""``python -m canarium_devcluster``."""

from canarium_devcluster.app import main

if __name__ == "__main__":
    main()
