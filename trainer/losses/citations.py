"""BibTeX of the methods behind the losses."""

from __future__ import annotations

XVLM2VEC_CITATION = """\
@misc{musacchio2025xvlm2vec,
    title={xVLM2Vec: Adapting LVLM-based embedding models to multilinguality using Self-Knowledge Distillation},
    author={Elio Musacchio and Lucia Siciliani and Pierpaolo Basile and Giovanni Semeraro},
    year={2025},
    eprint={2503.09313},
    archivePrefix={arXiv}
}"""

INFONCE_CITATION = """\
@misc{oord2018representation,
    title={Representation Learning with Contrastive Predictive Coding},
    author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018},
    eprint={1807.03748},
    archivePrefix={arXiv}
}"""

ONE_TO_MANY_CITATION = """\
@misc{nie2024improving,
    title={Improving the Consistency in Cross-Lingual Cross-Modal Retrieval with 1-to-K Contrastive Learning},
    author={Zhijie Nie and Richong Zhang and Zhangchi Feng and Hailang Huang and Xudong Liu},
    year={2024},
    eprint={2406.18254},
    archivePrefix={arXiv}
}"""

CROSS_COVARIANCE_CITATION = """\
@misc{cheung2014discovering,
    title={Discovering Hidden Factors of Variation in Deep Networks},
    author={Brian Cheung and Jesse A. Livezey and Arjun K. Bansal and Bruno A. Olshausen},
    year={2014},
    eprint={1412.6583},
    archivePrefix={arXiv}
}"""

MATRYOSHKA_CITATION = """\
@misc{kusupati2022matryoshka,
    title={Matryoshka Representation Learning},
    author={Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and Aditya Sinha and
        Vivek Ramanujan and William Howard-Snyder and Kaifeng Chen and Sham Kakade and Prateek Jain and Ali Farhadi},
    year={2022},
    eprint={2205.13147},
    archivePrefix={arXiv}
}"""
