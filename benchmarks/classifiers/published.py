"""Figures of the papers that stand beside ours, in percent."""

# Liang, Li, Srikant, ICLR 2018 (arXiv version), CIFAR-10: set -> network -> (MSP, ODIN), each (FPR95, AUROC).
ODIN_PAPER = {
    "Tiny ImageNet crop": {"DenseNet-BC": ((34.7, 95.3), (4.3, 99.1)), "WRN-28-10": ((38.9, 92.9), (23.4, 94.2))},
    "Tiny ImageNet resize": {"DenseNet-BC": ((40.8, 94.1), (7.5, 98.5)), "WRN-28-10": ((45.6, 91.0), (25.5, 92.1))},
    "Uniform noise": {"DenseNet-BC": ((23.5, 96.5), (0.0, 99.9)), "WRN-28-10": ((1.6, 99.2), (0.0, 100.0))},
    "Gaussian noise": {"DenseNet-BC": ((12.3, 97.5), (0.0, 100.0)), "WRN-28-10": ((0.3, 99.5), (0.0, 100.0))},
}
# Test error of the networks of that table.
ODIN_ERRORS = {"DenseNet-BC": 4.81, "WRN-28-10": 3.71}

# OpenOOD v1.5, ResNet-18 (95.06 % accuracy, three seeds), AUROC: method -> (CIFAR-100, MNIST, Textures).
OPENOOD = {
    "msp": (87.19, 92.63, 89.89),
    "odin": (82.18, 95.24, 86.94),
    "mahalanobis": (83.59, 90.10, 92.69),
    "relative_mahalanobis": (88.83, 93.22, 92.23),
    "energy": (86.36, 94.32, 89.47),
    "react": (85.93, 92.81, 89.38),
    "vim": (87.75, 94.76, 95.15),
    "knn": (89.73, 94.26, 93.16),
    "gen": (87.21, 93.83, 90.14),
    "ash": (74.11, 83.16, 77.45),
    "dice": (77.01, 90.37, 81.86),
    "scale": (81.27, 90.58, 83.94),
}
NEAR_TARGET = 89.7 - 2
